"""A page behind a load balancer whose gateway dies: the browser comes back to the other one, and sees every chunk once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator

import pytest
from playwright.async_api import Page, Response, expect

from tests.e2e.harness import PATIENCE_S, until
from tests.e2e.pair import Pair, paired, start
from tests.e2e.proxy import proxied
from tests.valkey import Valkey

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="session")]

PATIENCE_MS = PATIENCE_S * 1000
COUNT, MIDDLE = 1000, 500


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory, pages: str) -> Iterator[Pair]:
    valkey = Valkey()
    with paired(valkey, tmp_path_factory.mktemp("pair"), environment={"GATEWAY_SERVER__ALLOWED_ORIGINS": json.dumps([pages])}) as pair:
        yield pair
    valkey.close()


@pytest.mark.parametrize("goes_on", ["while the page is away", "once the page is back"])
async def test_eventsource_whose_gateway_dies_goes_on_at_the_owner(page: Page, pair: Pair, pages: str, goes_on: str) -> None:
    """B owns the run; the page reads it through A, which is killed."""
    a, b = pair
    statuses: list[int] = []
    closed = asyncio.Event()

    def note(response: Response) -> None:
        if not response.url.startswith(pages):
            statuses.append(response.status)
            if response.status == 204:
                closed.set()

    page.on("response", note)
    run = await start(b, "held", query="?_on_disconnect=grace:30s", tag="page", count=COUNT, gate=MIDDLE + 1)
    async with proxied(a.port) as proxy:
        await page.goto(f"{pages}/eventsource.html?url={proxy.url}/v1/runs/{run}/events")
        await chunks_become(page, MIDDLE)
        os.kill(a.pid, signal.SIGKILL)
        a.process.wait()
        if goes_on == "while the page is away":
            b.open_gate("page", MIDDLE + 1)
            await until(lambda: "done" in b.journal("page"), "the tool to go on while nobody is there")
            assert len(await seen(page)) == MIDDLE
        proxy.retarget(b.port)
        if goes_on == "once the page is back":
            await until(lambda: len(statuses) == 2, "the page to come back")
            b.open_gate("page", MIDDLE + 1)
        await expect(page.locator("#state")).to_have_text("end ok, closed", timeout=PATIENCE_MS)
        async with asyncio.timeout(PATIENCE_S):
            await closed.wait()
    assert await seen(page) == list(range(1, COUNT + 1))
    assert statuses == [200, 200, 204]
    assert b.journal("page") == ["start", "done", "finally", "cleanup"]
    assert a.journal("page") == []


async def test_eventsource_whose_gateway_dies_goes_on_at_the_one_that_is_left(page: Page, pair: Pair, pages: str) -> None:
    """B owns the run, and B is what the page reads from: A has all that was logged, and says what became of the run."""
    a, b = pair
    async with proxied(b.port) as proxy:
        url = f"{proxy.url}/v1/tools/held/stream?tag=page&count={COUNT}&gate={MIDDLE + 1}&_on_disconnect=grace:30s"
        await page.goto(f"{pages}/eventsource.html?url={url}")
        await chunks_become(page, MIDDLE)
        os.kill(b.pid, signal.SIGKILL)
        b.process.wait()
        proxy.retarget(a.port)
        await expect(page.locator("#state")).to_have_text("end error, closed", timeout=PATIENCE_MS)
    assert await seen(page) == list(range(1, MIDDLE + 1))
    assert a.journal("page") == []


async def seen(page: Page) -> list[int]:
    return [json.loads(text)["n"] for text in await page.locator("#chunks li").all_text_contents()]


async def chunks_become(page: Page, count: int) -> None:
    await expect(page.locator("#chunks li")).to_have_count(count, timeout=PATIENCE_MS)
