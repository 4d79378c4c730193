"""What a page does with a gateway that wants to know who it is: the session cookie, one-time tickets, a WebSocket's subprotocol."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, Page

from gateway.auth.keys import line_of, new_secret
from tests.e2e.harness import JOURNAL_ADAPTER, Served, served, until
from tests.e2e.proxy import proxied

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="session")]

KEY = new_secret()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, pages: str) -> Iterator[Served]:
    """A gateway that wants a key. Its own pages are of its own origin; those of `pages` are allowed."""
    settings = f"""
[server]
retry_ms = 50
allowed_origins = ["{pages}"]

[auth]
keys = "page {line_of("page", KEY, ["tools:*"]).partition(" ")[2]}"

[[pools]]
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
"""
    directory = tmp_path_factory.mktemp("guarded")
    with served(directory, settings=settings, environment={"GATEWAY_KEY": KEY}) as gateway:
        yield gateway
    assert KEY not in gateway.log.read_text()


# What the pages' scripts have in common: read an EventSource to its end, and say what came.
READ = """
(url) => new Promise((resolve) => {
    const source = new EventSource(url), seen = [];
    source.onmessage = (event) => seen.push(JSON.parse(event.data).n);
    source.addEventListener("end", (event) => { source.close(); resolve([seen, JSON.parse(event.data).status]) });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) resolve([seen, "closed"]) };
})
"""


async def own_page(page: Page, gateway: Served) -> None:
    """A document of the gateway's own origin, signed out."""
    await page.goto(f"{gateway.url}/livez")
    await page.context.clear_cookies()


async def sign_in(page: Page) -> int:
    post = """async (token) => (await fetch("/v1/signin", {method: "POST", body: JSON.stringify({token}),
        headers: {"Content-Type": "application/json"}})).status"""
    return int(await page.evaluate(post, KEY))


async def test_a_page_that_has_signed_in_may_use_eventsource_and_fetch(page: Page, guarded: Served) -> None:
    await own_page(page, guarded)
    url = "/v1/tools/numbered/stream?tag=cookie&count=3"
    assert await page.evaluate(READ, url) == [[], "closed"]
    assert guarded.journal("cookie") == []
    assert await sign_in(page) == 200
    assert await page.evaluate("document.cookie") == ""
    assert await page.evaluate(READ, url) == [[1, 2, 3], "ok"]
    assert await page.evaluate("fetch('/v1/tools').then((answer) => answer.status)") == 200
    assert await page.evaluate("fetch('/v1/signout', {method: 'POST'}).then((answer) => answer.status)") == 204
    assert await page.evaluate("fetch('/v1/tools').then((answer) => answer.status)") == 401


CLOSED = """(url) => new Promise((resolve) => { new WebSocket(url).onclose = () => resolve("closed") })"""


async def test_a_page_of_another_site_cannot_use_the_cookie(page: Page, guarded: Served, browser: BrowserContext) -> None:
    await own_page(page, guarded)
    assert await sign_in(page) == 200

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            other = await browser.new_page()
            # Another port is another origin of the same site, which cookies don't tell apart; another name is another site.
            for host in ("127.0.0.1", "localhost"):
                await other.goto(f"http://{host}:{server.server_address[1]}/")
                url = f"{guarded.url}/v1/tools/numbered/stream?tag=evil&count=1"
                asked = f"fetch({json.dumps(url)}, {{credentials: 'include', mode: 'no-cors'}}).then(() => 'sent')"
                assert await other.evaluate(asked) == "sent"
                assert await other.evaluate(CLOSED, url.replace("http", "ws", 1).replace("/stream", "/ws")) == "closed"
            await other.close()
        finally:
            server.shutdown()
            thread.join()
    assert guarded.journal("evil") == []


TICKET = """
async ([origin, path, key]) => (await (await fetch(origin + "/v1/tickets", {method: "POST", body: JSON.stringify({path}),
    headers: {"Content-Type": "application/json", "Authorization": "Bearer " + key}})).json()).url
"""


async def test_a_ticket_opens_an_eventsource_of_another_origin_which_comes_back_by_itself(page: Page, guarded: Served, pages: str) -> None:
    await page.goto(f"{pages}/eventsource.html?url=about:blank")
    path = "/v1/tools/gated/stream?tag=ticket&chunks=3&_on_disconnect=grace:30s"
    url = await page.evaluate(TICKET, [guarded.url, path, KEY])
    async with proxied(guarded.port) as proxy:
        reading = f"window.read = ({READ})({json.dumps(proxy.url + url)}); undefined"
        await page.evaluate(reading)
        await until(lambda: guarded.journal("ticket") == ["start"], "the tool to start")
        await until(lambda: guarded.client.get("/v1/runs").json()["runs"][0]["chunks"] == 1, "the first chunk")
        # It has it: the page is told as soon as the gateway is.
        await page.wait_for_timeout(100)
        proxy.cut()
        for number in (2, 3):
            guarded.open_gate("ticket", number)
        assert await page.evaluate("window.read") == [[1, 2, 3], "ok"]
    assert guarded.journal("ticket").count("start") == 1
    assert await page.evaluate(READ, guarded.url + url) == [[], "closed"]
    assert guarded.journal("ticket").count("start") == 1


SOCKET = """
([url, protocols]) => new Promise((resolve) => {
    const socket = new WebSocket(url, protocols), seen = [];
    socket.onopen = () => socket.send(JSON.stringify({type: "connection_init"}));
    socket.onmessage = (event) => {
        const frame = JSON.parse(event.data);
        if (frame.type === "connection_ack")
            socket.send(JSON.stringify({type: "subscribe", id: "a", payload: {tool: "numbered", args: {tag: "socket", count: 3}}}));
        if (frame.type === "next") seen.push(frame.payload.n);
        if (frame.type === "complete") { resolve([socket.protocol, seen, frame.payload.status]); socket.close() }
    };
    socket.onclose = (event) => resolve(event.code);
})
"""
TOKEN = "bearer.' + btoa(key).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '') + '"


async def test_a_socket_may_carry_its_key_in_a_subprotocol(page: Page, guarded: Served, pages: str) -> None:
    # Or the session of a test before this one would do: the page is of an allowed origin.
    await page.context.clear_cookies()
    await page.goto(f"{pages}/eventsource.html?url=about:blank")
    url = f"{guarded.url.replace('http', 'ws', 1)}/v1/ws"
    token = await page.evaluate(f"((key) => '{TOKEN}')({json.dumps(KEY)})")
    assert await page.evaluate(SOCKET, [url, ["snakepit.gateway.v1", token]]) == ["snakepit.gateway.v1", [1, 2, 3], "ok"]
    assert await page.evaluate(SOCKET, [url, ["snakepit.gateway.v1", "bearer.d3Jvbmc"]]) == 4401
    assert await page.evaluate(SOCKET, [url, ["snakepit.gateway.v1"]]) == 4401
    ticket = await page.evaluate(TICKET, [guarded.url, "/v1/ws", KEY])
    with_ticket = f"{guarded.url.replace('http', 'ws', 1)}{ticket}"
    assert (await page.evaluate(SOCKET, [with_ticket, ["snakepit.gateway.v1"]]))[2] == "ok"
    assert await page.evaluate(SOCKET, [with_ticket, ["snakepit.gateway.v1"]]) == 4401
