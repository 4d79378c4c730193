"""The example pages in a real browser, from another origin: EventSource, fetch, WebSocket; closed tabs stop tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import pytest
from playwright.async_api import Page, Response, expect

from tests.e2e.harness import PATIENCE_S, Served, until
from tests.e2e.proxy import proxied
from tests.e2e.socketclient import joined

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="session")]

PATIENCE_MS = PATIENCE_S * 1000


async def chunks(page: Page) -> list[str]:
    return await page.locator("#chunks li").all_text_contents()


async def state_becomes(page: Page, text: str) -> None:
    await expect(page.locator("#state")).to_have_text(text, timeout=PATIENCE_MS)


async def chunk_count_becomes(page: Page, count: int) -> None:
    await expect(page.locator("#chunks li")).to_have_count(count, timeout=PATIENCE_MS)


async def test_eventsource_gets_every_chunk_and_runs_the_tool_once(page: Page, gateway: Served, pages: str) -> None:
    """The browser reconnects by itself after the end; that must not start the tool again."""
    statuses: list[int] = []
    closed = asyncio.Event()

    def note(response: Response) -> None:
        if "/stream" in response.url and response.url.startswith(gateway.url):
            statuses.append(response.status)
            if response.status == 204:
                closed.set()

    page.on("response", note)
    await page.goto(f"{pages}/eventsource.html?url={gateway.url}/v1/tools/numbered/stream?tag=eventsource&count=200")
    await chunk_count_becomes(page, 200)
    async with asyncio.timeout(PATIENCE_S):
        await closed.wait()
    await state_becomes(page, "end ok, closed")
    assert [json.loads(text)["n"] for text in await chunks(page)] == list(range(1, 201))
    assert statuses == [200, 204]
    assert gateway.journal("eventsource").count("start") == 1


async def test_eventsource_shows_chunks_as_they_happen(page: Page, gateway: Served, pages: str) -> None:
    await page.goto(f"{pages}/eventsource.html?url={gateway.url}/v1/tools/gated/stream?tag=live&chunks=3")
    for number in (1, 2, 3):
        await chunk_count_becomes(page, number)
        gateway.open_gate("live", number + 1)
    await state_becomes(page, "end ok, closed")


async def test_eventsource_whose_server_dies_does_not_run_the_tool_again(page: Page, gateway: Served, pages: str) -> None:
    """The connection is cut after some chunks: the browser comes back with the last id and is told what became of the run."""
    async with proxied(gateway.port) as proxy:
        await page.goto(f"{pages}/eventsource.html?url={proxy.url}/v1/tools/gated/stream?tag=cut&chunks=2")
        await chunk_count_becomes(page, 1)
        proxy.cut()
        await state_becomes(page, "end cancelled, closed")
        assert gateway.journal("cut") == ["start", "finally", "cleanup"]


async def test_eventsource_whose_network_is_cut_and_restored_sees_every_chunk_once(page: Page, gateway: Served, pages: str) -> None:
    """Nobody else reads: the run waits for its reader, since its policy says so."""
    await network_is_cut_amid_a_run(page, gateway, pages, "grace", "&_on_disconnect=grace:30s")


async def test_eventsource_comes_back_to_a_run_that_another_viewer_kept(page: Page, gateway: Served, pages: str) -> None:
    """Its network is cut, too, but a WebSocket that has room for one chunk holds the run, and what it has yet to read."""
    async with joined(gateway) as viewer:

        async def attach(run: str) -> None:
            await viewer.say("attach", id="a", payload={"run": run, "credit": 1})
            await viewer.hear_until("start")

        await network_is_cut_amid_a_run(page, gateway, pages, "viewer", "", while_running=attach)


async def network_is_cut_amid_a_run(
    page: Page, gateway: Served, pages: str, tag: str, options: str, while_running: Callable[[str], Awaitable[None]] | None = None
) -> None:
    """Cut the network after 500 of 1,000 chunks, let the tool go on, restore, and see that all is there, once."""
    count, middle = 1000, 500
    statuses: list[int] = []
    closed = asyncio.Event()

    def note(response: Response) -> None:
        if "/stream" in response.url and not response.url.startswith(pages):
            statuses.append(response.status)
            if response.status == 204:
                closed.set()

    page.on("response", note)
    async with proxied(gateway.port) as proxy:
        url = f"{proxy.url}/v1/tools/held/stream?tag={tag}&count={count}&gate={middle + 1}{options}"
        await page.goto(f"{pages}/eventsource.html?url={url}")
        await chunk_count_becomes(page, middle)
        if while_running is not None:
            run = (await page.locator("#state").text_content() or "").removeprefix("running ")
            await while_running(run)
        accepted = proxy.accepted
        proxy.refuse()
        proxy.cut()
        gateway.open_gate(tag, middle + 1)
        await until(lambda: "done" in gateway.journal(tag), "the tool to go on while nobody is there")
        assert await chunks(page) == [json.dumps({"n": n}, separators=(",", ":")) for n in range(1, middle + 1)]
        await proxy.restore()
        await state_becomes(page, "end ok, closed")
        async with asyncio.timeout(PATIENCE_S):
            await closed.wait()
        assert proxy.accepted > accepted
    assert [json.loads(text)["n"] for text in await chunks(page)] == list(range(1, count + 1))
    assert statuses == [200, 200, 204]
    assert gateway.journal(tag) == ["start", "done", "finally", "cleanup"]


async def test_fetch_page_posts_arguments_and_reads_lines(page: Page, gateway: Served, pages: str) -> None:
    body = quote(json.dumps({"tag": "fetch", "count": 150}))
    await page.goto(f"{pages}/fetch.html?url={gateway.url}/v1/tools/numbered/stream#{body}")
    await state_becomes(page, "end ok")
    assert [json.loads(text)["n"] for text in await chunks(page)] == list(range(1, 151))


async def test_fetch_page_can_read_a_problem(page: Page, gateway: Served, pages: str) -> None:
    await page.goto(f"{pages}/fetch.html?url={gateway.url}/v1/tools/nothing/stream")
    await state_becomes(page, "Tool not found")


async def test_websocket_page_runs_two_tools_on_one_socket(page: Page, gateway: Served, pages: str) -> None:
    subscription = quote(json.dumps({"tool": "numbered", "args": {"tag": "socket", "count": 100}}))
    await page.goto(f"{pages}/websocket.html?url=ws://127.0.0.1:{gateway.port}/v1/ws#{subscription}")
    await state_becomes(page, "end ok")
    seen = [text.split(" ", 1) for text in await chunks(page)]
    for name in ("a", "b"):
        assert [json.loads(text)["n"] for run, text in seen if run == name] == list(range(1, 101))


async def test_websocket_page_cancels(page: Page, gateway: Served, pages: str) -> None:
    subscription = quote(json.dumps({"tool": "silent", "args": {"tag": "button"}}))
    await page.goto(f"{pages}/websocket.html?url=ws://127.0.0.1:{gateway.port}/v1/ws#{subscription}")
    await until(lambda: gateway.journal("button").count("start") == 2, "both tools")
    await page.locator("#cancel").click()
    await state_becomes(page, "end cancelled")
    await until(lambda: gateway.journal("button").count("cleanup") == 2, "both tools' ends")


@pytest.mark.parametrize("tool", ["endless", "endless_async", "silent"])
@pytest.mark.parametrize("kind", ["eventsource", "fetch", "websocket"])
async def test_closed_tab_stops_the_tool(page: Page, gateway: Served, pages: str, kind: str, tool: str) -> None:
    tag = f"tab-{kind}-{tool}"
    if kind == "websocket":
        fragment = quote(json.dumps({"tool": tool, "args": {"tag": tag}}))
        address = f"ws://127.0.0.1:{gateway.port}/v1/ws#{fragment}"
    elif kind == "fetch":
        address = f"{gateway.url}/v1/tools/{tool}/stream#{quote(json.dumps({'tag': tag}))}"
    else:
        address = f"{gateway.url}/v1/tools/{tool}/stream?tag={tag}"
    await page.goto(f"{pages}/{kind}.html?url={address}", wait_until="commit")
    runs = 2 if kind == "websocket" else 1
    await until(lambda: gateway.journal(tag).count("start") == runs, "the tool's start")
    await page.close()
    await until(lambda: gateway.journal(tag).count("cleanup") == runs, "the tool's end")
    await until(gateway.is_idle, "free workers")
    assert gateway.journal(tag).count("finally") == runs


async def test_page_of_another_origin_is_refused_a_socket(page: Page, gateway: Served, pages: str) -> None:
    stranger = pages.replace("127.0.0.1", "localhost")
    subscription = quote(json.dumps({"tool": "numbered", "args": {"tag": "stranger", "count": 1}}))
    await page.goto(f"{stranger}/websocket.html?url=ws://127.0.0.1:{gateway.port}/v1/ws#{subscription}", wait_until="commit")
    # The page's script may be yet to run.
    await page.wait_for_function("typeof socket !== 'undefined' && socket.readyState === WebSocket.CLOSED")
    assert gateway.journal("stranger") == []
