"""/client.js in a real browser: in the gateway's own pages, in those of another origin, and in several tabs at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from tests.e2e.harness import PATIENCE_S, Served, until
from tests.e2e.proxy import proxied

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="session")]

# What a page would have in its script: `way` is the gateway, a socket or the shared socket; `runs` holds what was started.
SETUP = """async (url) => {
  const { Gateway } = await import(url + "/client.js")
  const gateway = new Gateway()
  window.gateway = gateway
  window.ways = { http: gateway, socket: gateway.socket(), shared: gateway.sharedSocket() }
  window.shared = ways.shared.constructor.name
  window.seen = []
  window.read = async (way, tool, args, options) => {
    window.run = ways[way].stream(tool, args, options)
    try {
      for await (const chunk of window.run) seen.push(chunk.n)
      return { end: window.run.end.status, seen }
    } catch (error) {
      return { error: error.slug ?? error.message, seen }
    }
  }
  return { base: gateway.baseUrl, shared }
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: BrowserContext, gateway: Served) -> AsyncIterator[Page]:
    """A page of the gateway's with the client, under the console's policy."""
    page = await prepared(browser, f"{gateway.url}/console", gateway.url)
    yield page
    await page.close()


async def prepared(browser: BrowserContext, address: str, client: str) -> Page:
    page = await browser.new_page()
    await page.goto(address)
    assert (await page.evaluate(SETUP, client))["base"] == f"{client}/"
    return page


async def read(page: Page, way: str, tool: str, options: dict[str, Any] | None = None, **arguments: object) -> dict[str, Any]:
    return dict(await page.evaluate("(asked) => read(...asked)", [way, tool, arguments, options or {}]))


async def has_seen(page: Page, count: int) -> None:
    """Wait for so many chunks. Not by wait_for_function, which the page's policy forbids: it would evaluate a text there."""
    async with asyncio.timeout(PATIENCE_S):
        await page.evaluate("async (count) => { while (seen.length < count) await new Promise((go) => setTimeout(go, 5)) }", count)


def open_sockets(gateway: Served) -> int:
    lines = gateway.client.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("gateway_websockets_open"))))


@pytest.mark.parametrize("way", ["http", "socket", "shared"])
async def test_every_chunk_comes_in_order_once(page: Page, gateway: Served, way: str) -> None:
    assert await page.evaluate("shared") == "SharedSocket"
    told = await read(page, way, "numbered", tag=f"client-{way}", count=2000)
    assert told == {"end": "ok", "seen": list(range(1, 2001))}


@pytest.mark.parametrize("way", ["http", "socket", "shared"])
async def test_error_of_a_tool_is_thrown(page: Page, way: str) -> None:
    assert (await read(page, way, "numbered", tag="wrong", count="x"))["error"] == "invalid-arguments"
    assert (await read(page, way, "nothing"))["error"] == "tool-not-found"


@pytest.mark.parametrize("way", ["http", "socket", "shared"])
async def test_closed_page_stops_the_run_that_it_started(browser: BrowserContext, gateway: Served, way: str) -> None:
    """At once, though a lost connection would be waited for: the page says that it leaves."""
    tag = f"pagehide-{way}"
    page = await prepared(browser, f"{gateway.url}/console", gateway.url)
    await page.evaluate("(asked) => void read(...asked)", [way, "endless", {"tag": tag}, {}])
    await has_seen(page, 3)
    await page.close(run_before_unload=True)
    await until(lambda: "cleanup" in gateway.journal(tag), "the tool's end", timeout_s=10)
    await until(gateway.is_idle, "free workers")


async def test_page_of_another_origin_uses_the_client_that_the_gateway_serves(browser: BrowserContext, gateway: Served, pages: str) -> None:
    page = await prepared(browser, f"{pages}/fetch.html", gateway.url)
    # A shared worker has to be of the page's own origin: the page has a socket of its own instead.
    assert await page.evaluate("shared") == "Socket"
    for way in ("http", "shared"):
        told = await read(page, way, "numbered", tag=f"foreign-{way}", count=5)
        assert (told["end"], told["seen"][-5:]) == ("ok", [1, 2, 3, 4, 5])
    await page.close()


async def test_tabs_share_one_connection_and_the_run_of_one_outlives_the_other(browser: BrowserContext, gateway: Served) -> None:
    await until(lambda: open_sockets(gateway) == 0, "the other tests' sockets to close")
    tabs = [await prepared(browser, f"{gateway.url}/console", gateway.url) for _ in range(3)]
    # Closing the page says nothing of a run with a policy of its own: that the tab is gone, the worker finds out.
    policy = {"onDisconnect": "cancel"}
    for number, tab in enumerate(tabs):
        asked = ["shared", "gated", {"tag": f"tab-{number}", "chunks": 2}, policy]
        await tab.evaluate("(asked) => void (window.told = read(...asked))", asked)
        await has_seen(tab, 1)
    assert open_sockets(gateway) == 1
    await tabs[0].close()
    await until(lambda: "cleanup" in gateway.journal("tab-0"), "the closed tab's run to end")
    for number in (1, 2):
        gateway.open_gate(f"tab-{number}", 2)
        assert await tabs[number].evaluate("told") == {"end": "ok", "seen": [1, 2]}
        await tabs[number].close()


@pytest.mark.parametrize("way", ["http", "socket", "shared"])
async def test_run_whose_network_is_cut_is_read_on(browser: BrowserContext, gateway: Served, way: str) -> None:
    tag = f"client-cut-{way}"
    async with proxied(gateway.port) as proxy:
        page = await prepared(browser, f"{proxy.url}/console", proxy.url)
        reading = asyncio.ensure_future(read(page, way, "held", tag=tag, count=1000, gate=501))
        await has_seen(page, 500)
        proxy.refuse()
        proxy.cut()
        gateway.open_gate(tag, 501)
        await until(lambda: "done" in gateway.journal(tag), "the tool to go on while nobody is there")
        await proxy.restore()
        assert await reading == {"end": "ok", "seen": list(range(1, 1001))}
        await page.close()
    assert gateway.journal(tag) == ["start", "done", "finally", "cleanup"]


async def test_slow_tab_makes_its_tool_wait(page: Page, gateway: Served) -> None:
    """Over the shared socket too: what waits is one batch in the worker and the run's credit, not what the tool can make."""
    taken = await page.evaluate(
        """async () => {
          const run = ways.shared.stream("noted", { tag: "slow", chunks: 3000, size: 20000 }, { credit: 4 })
          const events = run.batches()
          await events.next()
          await events.next()
          window.slow = { run, events }
          return run.id
        }"""
    )
    made = -1
    while made != (made := gateway.journal("slow").count("yield")):
        await page.wait_for_timeout(400)
    assert made < 1500
    rest = """async () => {
      let count = 0
      for await (const events of slow.events) count += events.length
      return [count > 0, slow.run.end.chunks]
    }"""
    assert await page.evaluate(rest) == [True, 3000]
    assert taken.startswith("r_")
