"""The console in a real browser: a run from its form to its end, by both transports; what is cut, refused or stopped; and whether
everybody can use it.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.browser.console import Console
from tests.e2e.harness import DEMO_ADAPTER, JOURNAL_ADAPTER, ROOT, Served, served, until
from tests.e2e.proxy import proxied

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="session")]

AXE = ROOT / ".venv" / "node" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with the demo tools and the journal's, no setting of which is there for pages of other origins."""
    settings = f"""
[server]
retry_ms = 50

[[pools]]
name = "journal"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16

[[pools]]
name = "demo"
adapter = "{DEMO_ADAPTER}"
size = 2
"""
    with served(tmp_path_factory.mktemp("console-gateway"), settings=settings) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def console(browser: BrowserContext, gateway: Served) -> AsyncIterator[Console]:
    page = await browser.new_page()
    console = Console(page, gateway.url)
    yield console
    await page.close()
    assert console.complaints == []


@pytest.mark.parametrize("transport", ["SSE", "WebSocket"])
async def test_run_is_started_from_the_form_and_shown_to_its_end(console: Console, gateway: Served, transport: str) -> None:
    tag = f"form-{transport}"
    sockets: list[str] = []
    console.page.on("websocket", lambda socket: sockets.append(socket.url))
    await console.start("numbered", transport, tag=tag, count=12)
    await console.state_becomes("ok")
    await expect(console.figure("count")).to_have_text("12")
    assert await console.numbers() == list(range(1, 13))
    assert gateway.journal(tag).count("start") == 1
    assert len(sockets) == (transport == "WebSocket")


async def test_form_has_a_control_for_each_kind_of_argument(console: Console) -> None:
    await console.open("/tools/may_fail")
    page = console.page
    await expect(page.get_by_label("fail")).to_have_value("true")
    await expect(page.get_by_label("error")).to_have_value('"other"')
    assert await page.get_by_label("error").locator("option").all_text_contents() == ["–", "value", "missing", "denied", "timeout", "other"]
    await expect(page.get_by_label("after")).to_have_value("2")
    await expect(page.get_by_text("How many chunks come first; 0 fails before the first.")).to_be_visible()
    await console.open("/tools/process_items")
    items = page.get_by_label("items")
    await expect(items).to_have_attribute("aria-required", "true")
    await items.fill("[1, {")
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator("#argument-items-error")).to_contain_text("is not JSON")
    await expect(items).to_be_focused()
    await items.fill('["a", {"b": null}]')
    await page.get_by_role("button", name="Start", exact=True).click()
    await console.state_becomes("ok")
    await expect(page.locator(".row code").nth(1)).to_contain_text('"item":{"b":null}')


async def test_what_the_gateway_finds_wrong_stands_at_its_field(console: Console) -> None:
    await console.open("/tools/process_items")
    await console.page.get_by_label("items").fill('{"no": "list"}')
    await console.page.get_by_role("button", name="Start", exact=True).click()
    await console.state_becomes("failed")
    await expect(console.page.locator("#argument-items-error")).to_contain_text("is not of type")
    await expect(console.page.get_by_label("items")).to_have_attribute("aria-invalid", "true")


async def test_tool_that_fails_is_shown_with_its_chunks_and_its_exception(console: Console) -> None:
    await console.start("may_fail", after=2)
    await console.state_becomes("error")
    await expect(console.figure("count")).to_have_text("2")
    note = console.page.get_by_role("alert").filter(has_text="The tool failed")
    await expect(note).to_contain_text("RuntimeError")
    await expect(note).to_contain_text("failed after 2 chunks, as asked")


async def test_call_of_a_unary_tool_shows_its_result(console: Console) -> None:
    await console.open("/tools/add")
    await console.page.locator("#argument-a").fill("1.5")
    await console.page.get_by_role("button", name="Call", exact=True).click()
    await expect(console.page.locator("#argument-b-error")).to_have_text("is required")
    await console.page.locator("#argument-b").fill("2")
    await console.page.get_by_role("button", name="Call", exact=True).click()
    await expect(console.page.get_by_test_id("result")).to_have_text("3.5")


@pytest.mark.parametrize("transport", ["SSE", "WebSocket"])
async def test_stop_stops_the_tool(console: Console, gateway: Served, transport: str) -> None:
    tag = f"stop-{transport}"
    await console.start("endless", transport, tag=tag)
    await expect(console.page.locator(".row").first).to_be_visible()
    await console.page.get_by_role("button", name="Stop", exact=True).click()
    await console.state_becomes("cancelled")
    await until(lambda: "cleanup" in gateway.journal(tag), "the tool's end")
    await expect(console.page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)


@pytest.mark.parametrize("transport", ["SSE", "WebSocket"])
async def test_run_is_disconnected_and_resumed_without_a_hole(console: Console, gateway: Served, transport: str) -> None:
    tag = f"resume-{transport}"
    await console.start("gated", transport, tag=tag, chunks=4)
    await expect(console.figure("count")).to_have_text("1")
    await console.page.get_by_role("button", name="Disconnect").click()
    await console.state_becomes("disconnected")
    gateway.open_gate(tag, 2, 3)
    await console.page.get_by_role("button", name="Resume").click()
    await expect(console.figure("count")).to_have_text("3")
    gateway.open_gate(tag, 4)
    await console.state_becomes("ok")
    assert await console.numbers() == [1, 2, 3, 4]
    assert gateway.journal(tag).count("start") == 1


@pytest.mark.parametrize("transport", ["SSE", "WebSocket"])
async def test_run_whose_network_is_cut_is_read_on(browser: BrowserContext, gateway: Served, transport: str) -> None:
    tag = f"cut-{transport}"
    async with proxied(gateway.port) as proxy:
        page = await browser.new_page()
        console = Console(page, proxy.url)
        await console.start("held", transport, tag=tag, count=1000, gate=501)
        await expect(console.figure("count")).to_have_text("500")
        proxy.refuse()
        proxy.cut()
        await console.state_becomes("reconnecting")
        gateway.open_gate(tag, 501)
        await until(lambda: "done" in gateway.journal(tag), "the tool to go on while nobody is there")
        await proxy.restore()
        await console.state_becomes("ok")
        await expect(console.figure("count")).to_have_text("1,000")
        # The list is at its end.
        assert (await console.numbers())[-1] == 1000
        assert gateway.journal(tag) == ["start", "done", "finally", "cleanup"]
        await page.close()
    assert console.complaints == []


async def test_link_of_a_run_joins_it_on_another_page(console: Console, gateway: Served, browser: BrowserContext) -> None:
    await console.start("gated", tag="link", chunks=3)
    await expect(console.figure("count")).to_have_text("1")
    await expect(console.page).to_have_url(re.compile(r"#/tools/gated/r_"))
    run = console.page.url.rpartition("/")[2]
    page = await browser.new_page()
    other = Console(page, gateway.url)
    await other.open("/runs")
    await page.get_by_role("link", name=run).click()
    await expect(other.figure("count")).to_have_text("1")
    await expect(page.get_by_role("heading", name="gated")).to_be_visible()
    gateway.open_gate("link", 2, 3)
    for each in (console, other):
        await each.state_becomes("ok")
        assert await each.numbers() == [1, 2, 3]
    await page.close()
    assert other.complaints == []


async def test_reload_comes_back_to_the_run(console: Console, gateway: Served) -> None:
    await console.start("gated", tag="reload", chunks=3)
    await expect(console.page).to_have_url(re.compile(r"#/tools/gated/r_"))
    await console.page.reload()
    await expect(console.figure("count")).to_have_text("1")
    gateway.open_gate("reload", 2, 3)
    await console.state_becomes("ok")
    assert gateway.journal("reload").count("start") == 1


async def test_runs_are_listed_by_state_and_stopped(console: Console, gateway: Served) -> None:
    await console.start("silent", tag="listed")
    await until(lambda: gateway.journal("listed") == ["start"], "the tool")
    await console.open("/runs")
    await console.page.get_by_label("State").select_option("running")
    row = console.page.get_by_role("row").filter(has_text="silent")
    await row.get_by_role("button", name="Stop").click()
    await expect(row).to_have_count(0)
    await console.page.get_by_label("State").select_option("cancelled")
    await expect(row.first).to_be_visible()
    assert "finally" in gateway.journal("listed")


async def test_pools_show_workers_and_what_is_in_flight(console: Console, gateway: Served) -> None:
    await console.start("gated", tag="pools", chunks=2)
    await expect(console.figure("count")).to_have_text("1")
    await console.open("/pools")
    pool = console.page.get_by_role("region", name="journal")
    await expect(pool.get_by_text("1 of 16 places in use")).to_be_visible()
    await expect(pool.get_by_role("row").filter(has_text="journal-1")).to_contain_text("ready")
    gateway.open_gate("pools", 2)
    await expect(pool.get_by_text("0 of 16 places in use")).to_be_visible()


async def test_page_is_not_kept_waiting_by_its_own_streams(console: Console, gateway: Served) -> None:
    """A browser has six connections to a server: the oldest of more streams is let go, and can be had again."""
    for number in range(7):
        await console.start("gated", tag=f"stream-{number}", chunks=2)
        await expect(console.figure("count")).to_have_text("1")
    await console.open("/pools")
    await expect(console.page.get_by_role("region", name="journal").get_by_text("of 16 places in use")).to_be_visible()
    await console.open("/runs")
    await console.page.get_by_role("row").filter(has_text="gated").nth(6).get_by_role("link").click()
    await console.state_becomes("disconnected")
    for number in range(7):
        gateway.open_gate(f"stream-{number}", 2)
    await console.page.get_by_role("button", name="Resume").click()
    await console.state_becomes("ok")
    assert await console.numbers() == [1, 2]


async def test_call_is_stopped(console: Console, gateway: Served) -> None:
    await console.open("/tools/wait")
    await console.page.locator("#argument-tag").fill("call")
    await console.page.get_by_role("button", name="Call", exact=True).click()
    await until(lambda: gateway.journal("call") == ["start"], "the tool")
    await console.page.get_by_role("button", name="Stop", exact=True).click()
    await console.state_becomes("cancelled")
    await until(lambda: "cleanup" in gateway.journal("call"), "the tool's end")


async def test_plot_shows_the_values_and_the_progress_counts(console: Console) -> None:
    await console.open("/tools")
    await console.page.evaluate(WATCH_PROGRESS)
    await console.start("train_with_progress", epochs=4)
    await console.state_becomes("ok")
    assert await console.page.evaluate("progress") == [0.25, 0.5, 0.75, 1]
    rows = [await row.locator("td").all_text_contents() for row in await console.page.locator(".plot figcaption tbody tr").all()]
    assert rows == [["4", "1", "4"], ["0.4096", "0.4096", "0.8"], ["0.7", "0.55", "0.7"]]
    plot = console.page.get_by_role("img", name="Plot of loss, accuracy over the chunks")
    box = await plot.locator(".u-over").bounding_box()
    assert box is not None
    # The cursor at the second of four chunks: the legend says what is drawn there.
    await console.page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
    assert await plot.locator(".u-value").all_text_contents() == ["2", "0.64", "0.6"]
    # And the lines are there: where the second chunk's loss is, there is its colour.
    assert await plot.evaluate(COLOUR_NEAR, {"x": 1 / 3, "value": 0.64, "series": 1})
    await console.page.get_by_role("checkbox", name="epoch").check()
    await expect(console.page.get_by_role("img", name="Plot of epoch, loss, accuracy over the chunks")).to_be_visible()


# All values that a progress bar had, from when this is evaluated on.
WATCH_PROGRESS = """() => {
  window.progress = []
  new MutationObserver(() => {
    const value = document.querySelector("progress")?.value
    if (value !== undefined && value !== progress.at(-1)) progress.push(value)
  }).observe(document, { subtree: true, childList: true, attributes: true })
}"""

# Whether the canvas has the series' colour within 4 pixels of where a value has to be.
COLOUR_NEAR = """(plot, { x, value, series }) => {
  const canvas = plot.querySelector("canvas")
  const over = plot.querySelector(".u-over")
  const marks = [...plot.querySelectorAll(".u-marker")]
  const [red, green, blue] = getComputedStyle(marks[series]).borderColor.match(/[0-9]+/g).map(Number)
  const scale = canvas.width / canvas.clientWidth
  const left = Math.round((over.offsetLeft + over.clientWidth * x) * scale)
  const { data, width } = canvas.getContext("2d").getImageData(left - 4, 0, 9, canvas.height)
  for (let at = 0; at < data.length; at += 4) {
    if (Math.abs(data[at] - red) + Math.abs(data[at + 1] - green) + Math.abs(data[at + 2] - blue) < 30 && data[at + 3] > 200) return true
  }
  return false
}"""


async def test_ten_thousand_chunks_stay_smooth(console: Console, record_property: Any) -> None:
    """No frame waits long for the page, and the page holds a screenful of rows, not ten thousand."""
    await console.open("/tools/numbered")
    await console.page.evaluate(WATCH_FRAMES)
    await console.start("numbered", tag="many", count=10_000)
    await console.state_becomes("ok")
    await expect(console.figure("count")).to_have_text("10,000")
    frames = await console.page.evaluate("frames()")
    record_property("frames", json.dumps(frames))
    print(f"10,000 chunks: {frames}")  # noqa: T201
    assert await console.page.locator(".row").count() < 60
    assert (await console.numbers())[-1] == 10_000
    assert frames["longest_task_ms"] < 500
    listbox = console.page.get_by_role("listbox", name="Chunks")
    await listbox.press("Home")
    await expect(console.page.locator(".row .number").first).to_have_text("1")
    await expect(console.page.get_by_role("region", name="Chunk 1", exact=True)).to_contain_text('"n": 1')


WATCH_FRAMES = """() => {
  const seen = { frames: 0, longest_frame_ms: 0, frames_over_50_ms: 0, longest_task_ms: 0, began: performance.now() }
  let last = performance.now()
  const tick = (now) => {
    seen.frames += 1
    seen.longest_frame_ms = Math.max(seen.longest_frame_ms, now - last)
    if (now - last > 50) seen.frames_over_50_ms += 1
    last = now
    requestAnimationFrame(tick)
  }
  requestAnimationFrame(tick)
  new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) seen.longest_task_ms = Math.max(seen.longest_task_ms, duration)
  }).observe({ entryTypes: ["longtask"] })
  window.frames = () => ({ ...seen, took_ms: performance.now() - seen.began })
}"""


async def test_list_is_used_with_the_keyboard(console: Console) -> None:
    await console.start("numbered", tag="keys", count=100)
    await console.state_becomes("ok")
    listbox = console.page.get_by_role("listbox", name="Chunks")
    await listbox.focus()
    for key, number in (("Home", 1), ("ArrowDown", 2), ("PageDown", 15), ("End", 100), ("ArrowUp", 99), ("ArrowUp", 98)):
        await listbox.press(key)
        await expect(console.page.locator(".row[aria-selected=true] .number")).to_have_text(str(number))
        await expect(listbox).to_have_attribute("aria-activedescendant", f"chunk-{number}")
    await expect(console.page.get_by_role("region", name="Chunk 98")).to_be_visible()


async def test_snippets_are_copied_and_do_what_the_form_does(console: Console, gateway: Served, browser: BrowserContext) -> None:
    await browser.grant_permissions(["clipboard-read", "clipboard-write"], origin=gateway.url)
    await console.open("/tools/numbered")
    await console.page.locator("#argument-tag").fill("it's")
    await console.page.locator("#argument-count").fill("2")
    copied = {}
    for name in ("curl", "fetch", "Python"):
        button = console.page.get_by_role("button", name=f"Copy as {name}")
        await button.click()
        await expect(button).to_contain_text("copied")
        copied[name] = await console.page.evaluate("navigator.clipboard.readText()")
    shell = await asyncio.create_subprocess_shell(copied["curl"], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    output, _ = await shell.communicate()
    assert output.count(b'{"stream":"it\'s","n":') == 2
    python = await asyncio.create_subprocess_exec(sys.executable, "-c", copied["Python"], stdout=asyncio.subprocess.PIPE)
    output, _ = await python.communicate()
    assert output.decode().splitlines() == ["{'stream': \"it's\", 'n': 1}", "{'stream': \"it's\", 'n': 2}"]
    assert copied["Python"].startswith("from gateway import Client\n")
    assert f'import {{ Gateway }} from "{gateway.url}/client.js"' in copied["fetch"]
    assert 'gateway.stream("numbered", {"tag":"it\'s","count":2}, {"onDisconnect":"grace:30s"})' in copied["fetch"]


async def test_theme_is_the_readers_choice_and_is_kept(console: Console) -> None:
    await console.open("/tools")
    background = "getComputedStyle(document.documentElement).backgroundColor"
    await console.page.emulate_media(color_scheme="dark")
    dark = await console.page.evaluate(background)
    await console.page.get_by_label("Theme").select_option("light")
    root = console.page.locator("html")
    await expect(root).to_have_attribute("data-theme", "light")
    light = await console.page.evaluate(background)
    assert dark != light
    await console.page.reload()
    await expect(console.page.get_by_label("Theme")).to_have_value("light")
    assert await console.page.evaluate(background) == light
    await console.page.get_by_label("Theme").select_option("system")
    await expect(root).to_have_attribute("data-theme", "system")
    assert await console.page.evaluate(background) == dark


async def test_narrow_screen_shows_all_without_scrolling_sideways(console: Console) -> None:
    await console.page.set_viewport_size({"width": 360, "height": 720})
    await console.start("train_with_progress", epochs=1)
    await console.state_becomes("ok")
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    for path in (None, "/runs", "/pools", "/tools"):
        if path is not None:
            await console.open(path)
            await expect(console.page.get_by_role("heading", level=2)).to_be_visible()
        if path == "/runs":
            await expect(console.page.get_by_role("row")).not_to_have_count(1)
        assert await console.page.evaluate(sideways) == 0, path
    await console.page.get_by_role("link", name="train_with_progress").click()
    await expect(console.page.get_by_role("link", name="← Tools")).to_be_visible()


async def test_key_is_asked_for_where_the_gateway_wants_one(console: Console) -> None:
    """The gateway here wants none: its answers are played."""
    problem = {"type": "/problems/unauthenticated", "title": "Who asks is not known", "status": 401, "detail": "a key is needed"}
    keys: list[Any] = []

    async def refuse(route: Any) -> None:
        if keys:
            await route.continue_()
        else:
            await route.fulfill(status=401, content_type="application/problem+json", body=json.dumps(problem))

    async def sign_in(route: Any) -> None:
        key = route.request.post_data_json["token"]
        if key == "right":
            keys.append(key)
            await route.fulfill(status=204)
        else:
            await route.fulfill(status=401, content_type="application/problem+json", body=json.dumps({**problem, "detail": "no such key"}))

    await console.page.route("**/v1/tools", refuse)
    await console.page.route("**/v1/signin", sign_in)
    await console.open("/tools")
    dialog = console.page.get_by_role("dialog", name="Sign in")
    await dialog.get_by_label("API key").fill("wrong")
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(dialog.get_by_role("alert")).to_have_text("no such key")
    await dialog.get_by_label("API key").fill("right")
    await dialog.get_by_role("button", name="Sign in").click()
    await expect(dialog).to_be_hidden()
    await expect(console.page.get_by_role("link", name="numbered")).to_be_visible()
    await console.page.route("**/v1/signout", lambda route: route.fulfill(status=204))
    await console.page.get_by_role("button", name="Sign out").click()
    await expect(console.page.get_by_role("button", name="Sign out")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["tools", "run", "error", "runs", "pools"])
async def test_axe_finds_nothing(console: Console, gateway: Served, view: str, scheme: Any) -> None:
    if not AXE.is_file():
        pytest.skip(f"axe-core is not at {AXE}; `make test` installs it, where there is npm")
    await console.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    if view == "run":
        await console.start("train_with_progress", epochs=2)
        await console.state_becomes("ok")
        await console.page.get_by_role("listbox", name="Chunks").press("Home")
    elif view == "error":
        await console.open("/tools/process_items")
        await console.page.get_by_text("Options", exact=True).click()
        await console.page.get_by_label("items").fill("{}")
        await console.page.get_by_role("button", name="Start", exact=True).click()
        await console.state_becomes("failed")
    else:
        await console.open(f"/{view}")
        await expect(console.page.locator("main h2")).to_be_visible()
        await expect(console.page.locator("a[href^='#/']").first).to_be_visible()
    # By the protocol, past the page's policy, which would not let a script of ours in.
    await console.page.evaluate(AXE.read_text())
    found = await console.page.evaluate("axe.run()")
    assert [(entry["id"], entry["impact"], [node["html"] for node in entry["nodes"]]) for entry in found["violations"]] == []
