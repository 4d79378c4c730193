"""The console of a gateway that wants to know who asks: signed in by the cookie, over http on loopback, with real keys."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, expect

from tests.browser.console import Console
from tests.e2e.harness import DEMO_ADAPTER, JOURNAL_ADAPTER, Served, served
from tests.endpoints.people import ADA, ADMIN, BOB, PEOPLE, SECRET

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="session")]

# Long enough for a run to have begun, on a slow machine too.
BRIEF_S = 6


def guarded(directory: Path, cookie_ttl_s: int) -> Iterator[Served]:
    settings = f"""
[server]
retry_ms = 50

[auth]
keys = "{"; ".join(person.line for person in PEOPLE)}"
secret = "{SECRET}"
cookie_ttl_s = {cookie_ttl_s}

[[pools]]
name = "journal"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16

[[pools]]
name = "demo"
adapter = "{DEMO_ADAPTER}"
size = 1
"""
    with served(directory, settings=settings, environment={"GATEWAY_KEY": ADMIN.key}) as gateway:
        yield gateway
    log = gateway.log.read_text()
    assert not [person.name for person in PEOPLE if person.key in log]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from guarded(tmp_path_factory.mktemp("guarded-console"), 3600)


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway whose sessions are over after BRIEF_S."""
    yield from guarded(tmp_path_factory.mktemp("brief-console"), BRIEF_S)


@pytest_asyncio.fixture(loop_scope="session")
async def console(browser: BrowserContext, request: pytest.FixtureRequest) -> AsyncIterator[Console]:
    """The page of somebody who has not signed in; of `gateway`, unless a test asks for another."""
    # A cookie is a host's, whichever port it is of.
    await browser.clear_cookies()
    page = await browser.new_page()
    served: Served = request.getfixturevalue(getattr(request, "param", "gateway"))
    console = Console(page, served.url)
    yield console
    await page.close()
    await browser.clear_cookies()
    assert console.complaints == []


def dialog(console: Console) -> Locator:
    return console.page.get_by_role("dialog", name="Sign in")


async def sign_in(console: Console, key: str) -> None:
    await dialog(console).get_by_label("API key").fill(key)
    await dialog(console).get_by_role("button", name="Sign in").click()


async def test_a_key_is_asked_for_by_the_first_refusal_and_becomes_a_cookie(console: Console, browser: BrowserContext) -> None:
    await console.open("/tools")
    await expect(dialog(console)).to_be_visible()
    await expect(console.page.locator("nav.tools a")).to_have_count(0)
    await sign_in(console, "gw_wrong")
    await expect(dialog(console).get_by_role("alert")).to_contain_text("key")
    await sign_in(console, ADA.key)
    await expect(dialog(console)).to_be_hidden()
    await expect(console.page.get_by_role("link", name="numbered")).to_be_visible()
    await expect(console.page.get_by_role("alert").filter(has_text="credential")).to_have_count(0)
    (cookie,) = await browser.cookies(console.url)
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == ("snakepit_session", True, False, "Strict")
    kept = await console.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert ADA.key not in kept


@pytest.mark.parametrize("transport", ["SSE", "WebSocket"])
async def test_a_stream_runs_for_who_has_signed_in(console: Console, gateway: Served, transport: str) -> None:
    await console.open("/tools")
    await sign_in(console, ADA.key)
    tag = f"signed-in-{transport}"
    await console.start("numbered", transport, tag=tag, count=12)
    await console.state_becomes("ok")
    assert await console.numbers() == list(range(1, 13))
    assert gateway.journal(tag).count("start") == 1


async def test_runs_are_the_callers_own_and_sign_out_ends_it(console: Console, gateway: Served) -> None:
    page = console.page
    for person in (ADA, BOB):
        started = gateway.client.post("/v1/tools/numbered/runs", json={"tag": person.name, "count": 1}, headers=person.bearer)
        assert started.status_code == 202
    newest = {person.name: gateway.client.get("/v1/runs", headers=person.bearer).json()["runs"][0]["run"] for person in (ADA, BOB)}
    await console.open("/runs")
    await sign_in(console, BOB.key)
    await expect(page.get_by_role("link", name=newest["bob"])).to_be_visible()
    await expect(page.get_by_role("link", name=newest["ada"])).to_have_count(0)
    await console.open(f"/runs/{newest['ada']}")
    await console.state_becomes("failed")
    await expect(page.get_by_role("alert").filter(has_text="404")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(dialog(console)).to_be_visible()
    await expect(page.get_by_role("button", name="Sign out")).to_have_count(0)
    assert await page.evaluate("fetch('v1/runs').then((answer) => answer.status)") == 401


async def test_who_declines_is_not_asked_again_until_they_want_to(console: Console) -> None:
    page = console.page
    await console.open("/runs")
    await dialog(console).get_by_role("button", name="Not now").click()
    # The page's next look, which is refused like the first.
    async with page.expect_response(lambda answer: "/v1/runs" in answer.url and answer.status == 401):
        pass
    await expect(page.get_by_role("article").get_by_role("alert")).to_contain_text("credential")
    await expect(dialog(console)).to_be_hidden()
    await page.get_by_role("button", name="Sign in").click()
    await sign_in(console, ADA.key)
    await expect(page.get_by_role("button", name="Sign out")).to_be_visible()


async def test_link_to_a_run_shows_it_after_the_sign_in(console: Console, gateway: Served) -> None:
    started = gateway.client.post("/v1/tools/numbered/runs", json={"tag": "linked", "count": 3}, headers=ADA.bearer).json()
    await console.open(f"/runs/{started['run']}")
    await sign_in(console, ADA.key)
    await console.state_becomes("ok")
    await expect(console.figure("count")).to_have_text("3")


@pytest.mark.parametrize("console", ["brief"], indirect=True)
@pytest.mark.parametrize("transport", ["SSE", "WebSocket"])
async def test_run_whose_reader_s_session_is_over_is_read_on_after_the_next_one(console: Console, brief: Served, transport: str) -> None:
    tag = f"brief-{transport}"
    await console.open("/tools")
    await sign_in(console, ADA.key)
    await expect(dialog(console)).to_be_hidden()
    await console.start("gated", transport, tag=tag, chunks=3)
    await expect(console.figure("count")).to_have_text("1")
    await expect(dialog(console)).to_be_visible()
    await console.state_becomes("disconnected")
    brief.open_gate(tag, 2, 3)
    await sign_in(console, ADA.key)
    await console.state_becomes("ok")
    assert await console.numbers() == [1, 2, 3]
    assert brief.journal(tag).count("start") == 1


@pytest.mark.parametrize(("tool", "arguments", "said"), [("numbered", {"tag": "copied", "count": 2}, 2), ("add", {"a": 1, "b": 2}, 1)])
async def test_python_that_is_copied_runs_with_the_key_of_the_environment(
    console: Console, gateway: Served, browser: BrowserContext, tool: str, arguments: dict[str, object], said: int
) -> None:
    await browser.grant_permissions(["clipboard-read", "clipboard-write"], origin=gateway.url)
    await console.open(f"/tools/{tool}")
    await sign_in(console, ADA.key)
    for name, value in arguments.items():
        await console.page.locator(f"#argument-{name}").fill(str(value))
    await console.page.get_by_text("Options", exact=True).click()
    await console.page.get_by_label("Deadline, ms").fill("20500")
    button = console.page.get_by_role("button", name="Copy as Python")
    await button.click()
    await expect(button).to_contain_text("copied")
    copied = await console.page.evaluate("navigator.clipboard.readText()")
    assert "timeout_s=20.5" in copied
    assert ADA.key not in copied
    for key, exit_code, lines in ((ADA.key, 0, said), ("gw_wrong", 1, 0)):
        python = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            copied,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "GATEWAY_KEY": key},
        )
        output, _ = await python.communicate()
        assert (python.returncode, len(output.splitlines())) == (exit_code, lines)


async def test_javascript_client_loads_and_says_its_token_on_both_ways(console: Console, gateway: Served) -> None:
    # Of the same origin, without a cookie: the token is all there is.
    await console.page.goto(f"{gateway.url}/livez")
    read = """async ([token, way]) => {
        const { Gateway } = await import("/client.js")
        const gateway = new Gateway(undefined, { token, credentials: "omit" })
        const source = way === "socket" ? gateway.socket() : way === "shared" ? gateway.sharedSocket() : gateway
        const seen = []
        try {
            for await (const { n } of source.stream("numbered", { tag: "client", count: 3 })) seen.push(n)
            return seen
        } catch (error) {
            return error.status
        } finally {
            source.close?.()
        }
    }"""
    for way in ("fetch", "socket", "shared"):
        assert await console.page.evaluate(read, [ADA.key, way]) == [1, 2, 3], way
        assert await console.page.evaluate(read, ["gw_wrong", way]) == 401, way
