"""What pages of other origins can do to a gateway in a real browser: nothing, unless the settings name them."""

from __future__ import annotations

import pytest
from playwright.async_api import ConsoleMessage, Page, expect

from tests.e2e.harness import PATIENCE_S, Served, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="session")]

# Each tries to start a tool, and ends when the browser says that it is over.
ATTEMPTS = {
    "fetch": "fetch(url).then(r => r.text()).then(() => 'read', () => 'refused')",
    "fetch, not reading": "fetch(url, {mode: 'no-cors'}).then(() => 'sent')",
    "fetch, POST": "fetch(url.split('?')[0], {method: 'POST', mode: 'no-cors', body: body}).then(() => 'sent')",
    "fetch, POST of JSON": """fetch(url.split('?')[0], {method: 'POST', body: body, headers: {'content-type': 'application/json'}})
        .then(() => 'read', () => 'refused')""",
    "EventSource": """new Promise(done => { const s = new EventSource(url); s.onopen = () => done('read');
        s.onerror = () => done('refused') })""",
    "image": "new Promise(done => { const i = new Image(); i.onload = i.onerror = () => done('sent'); i.src = url })",
    "script": """new Promise(done => { const s = document.createElement('script'); s.onload = s.onerror = () => done('sent'); s.src = url;
        document.head.append(s) })""",
    "frame": """new Promise(done => { const f = document.createElement('iframe'); f.onload = () => done('sent'); f.src = url;
        document.body.append(f) })""",
    "form": """new Promise(done => { const f = document.createElement('iframe'); f.name = 'target'; document.body.append(f);
        const form = document.createElement('form'); form.method = 'POST'; form.action = url.split('?')[0]; form.target = 'target';
        form.enctype = 'text/plain'; document.body.append(form); f.onload = () => done('sent'); form.submit() })""",
    "sandboxed frame": """new Promise(done => { const f = document.createElement('iframe'); f.sandbox = 'allow-scripts';
        f.srcdoc = `<script>fetch('${url}', {mode: 'no-cors'}).then(() => parent.postMessage('sent', '*'))</script>`;
        onmessage = (event) => done(event.data); document.body.append(f) })""",
    "beacon": "navigator.sendBeacon(url.split('?')[0], body) && fetch(url, {mode: 'no-cors'}).then(() => 'sent')",
    "WebSocket": """new Promise(done => { const s = new WebSocket(socket); s.onopen = () => done('read');
        s.onclose = () => done('refused') })""",
}


async def attempt(page: Page, gateway: Served, tag: str, script: str) -> str:
    """Have the page try it; return what the browser let it see."""
    url = f"{gateway.url}/v1/tools/numbered/stream?tag={tag}&count=1"
    socket = f"ws://127.0.0.1:{gateway.port}/v1/tools/numbered/ws?tag={tag}&count=1"
    body = f'{{"tag": "{tag}", "count": 1}}'
    seen: str = await page.evaluate(f"([url, socket, body]) => {script}", [url, socket, body])
    return seen


async def sees_all_that_ran(page: Page, gateway: Served, pages: str) -> None:
    """Run a tool from an allowed page: what was sent before has had its time by then."""
    await page.goto(pages)
    assert await attempt(page, gateway, "allowed", ATTEMPTS["fetch"]) == "read"
    await until(lambda: "start" in gateway.journal("allowed"), "the allowed page's tool")


@pytest.mark.parametrize("name", ATTEMPTS)
@pytest.mark.parametrize("where", ["another site", "another port"])
async def test_a_page_that_nobody_allowed_runs_nothing(
    page: Page, gateway: Served, pages: str, other_pages: str, where: str, name: str
) -> None:
    await page.goto(pages.replace("127.0.0.1", "localhost") if where == "another site" else other_pages)
    tag = f"stranger-{where}-{name}".replace(" ", "-").replace(",", "")
    assert await attempt(page, gateway, tag, ATTEMPTS[name]) in ("refused", "sent")
    await sees_all_that_ran(page, gateway, pages)
    assert gateway.journal(tag) == []


@pytest.mark.parametrize("name", ["fetch", "fetch, POST of JSON", "EventSource", "WebSocket"])
async def test_a_page_that_was_allowed_runs_tools_and_reads_what_they_say(page: Page, gateway: Served, pages: str, name: str) -> None:
    await page.goto(pages)
    tag = f"friend-{name}".replace(" ", "-").replace(",", "")
    assert await attempt(page, gateway, tag, ATTEMPTS[name]) == "read"
    await until(lambda: "start" in gateway.journal(tag), "the tool's start")


async def test_a_page_that_was_allowed_may_come_with_cookies_and_reads_what_is_exposed(page: Page, gateway: Served, pages: str) -> None:
    await page.goto(pages)
    script = """async (url) => {
        document.cookie = 'who=ann';
        const answer = await fetch(url, {credentials: 'include'});
        const source = new EventSource(url, {withCredentials: true});
        const opened = await new Promise(done => { source.onopen = () => done(true); source.onerror = () => done(false) });
        source.close();
        return [answer.headers.get('content-location'), opened];
    }"""
    location, opened = await page.evaluate(script, f"{gateway.url}/v1/tools/numbered/stream?tag=cookie&count=1")
    assert location.startswith("/v1/runs/r_")
    assert opened


async def test_a_name_that_was_rebound_to_us_is_not_ours(page: Page, gateway: Served) -> None:
    answer = await page.goto(f"http://rebound.example:{gateway.port}/docs")
    assert answer is not None
    assert answer.status == 421
    tag = "rebound"
    script = f"fetch('/v1/tools/numbered/stream?tag={tag}&count=1').then(r => r.status)"
    assert await page.evaluate(script) == 421
    assert gateway.journal(tag) == []


async def test_the_docs_show_the_tools_under_their_own_policy(page: Page, gateway: Served) -> None:
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(f"{gateway.url}/docs")
    await expect(page.locator('[data-path="/v1/tools/numbered/stream"]').first).to_be_visible(timeout=PATIENCE_S * 1000)
    assert complaints == []


async def test_our_own_page_s_beacon_cancels_though_it_names_no_referrer(page: Page, gateway: Served) -> None:
    await page.goto(f"{gateway.url}/docs")
    start = """fetch('/v1/tools/silent/runs',
        {method: 'POST', body: '{"tag": "beacon-own"}', headers: {'content-type': 'application/json'}}).then(r => r.json())
        .then(state => state.run)"""
    run = await page.evaluate(start)
    await until(lambda: "start" in gateway.journal("beacon-own"), "the tool's start")
    assert await page.evaluate("run => navigator.sendBeacon(`/v1/runs/${run}/cancel`)", run)
    await until(lambda: "cleanup" in gateway.journal("beacon-own"), "the tool's end")
