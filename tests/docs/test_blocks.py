"""Every fenced block of README.md and docs/ is run, or says ahead of it why not: `<!-- not run: … -->`.

In a block `localhost:8000` is this test's gateway and `r_…` one of its runs. JavaScript runs in a page of that gateway and has to say
something on the console; adapters are loaded, and served where their first line names a file; settings are read.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import BrowserContext, ConsoleMessage

from gateway import settings
from gateway.runtime import compat, loading
from tests.docs.blocks import Block, all_blocks, blocks_of, pages
from tests.e2e.harness import ROOT, Served

NODE = Path(sys.prefix) / "node"
NO_NODE = "make .venv/.node (needs npm)"
PATIENCE_S = 30.0
BODY = "<!doctype html><body><div id=app></div><script{}>{}</script>"
OVER = "the block is over"
REACT = """
import { createRoot } from "react-dom/client";
import App from "./App.jsx";
createRoot(document.querySelector("#app")).render(<App />);
"""
SVELTE = """
import { mount } from "svelte";
import App from "./App.js";
mount(App, { target: document.querySelector("#app") });
"""
SVELTE_COMPILER = """
import { compile } from "svelte/compiler";
import { readFileSync } from "node:fs";
const { js, warnings } = compile(readFileSync(0, "utf8"), { generate: "client" });
if (warnings.length) throw new Error(warnings.map((warning) => warning.message).join("\\n"));
process.stdout.write(js.code);
"""
ESBUILD = ("main.jsx", "--bundle", "--jsx=automatic", "--conditions=browser", '--define:process.env.NODE_ENV="production"')
# Output, requests and pictures, for people to read.
TEXTS = {"", "text"}
BLOCKS = all_blocks()
PYTHON = [block for block in BLOCKS if block.language == "python" and block.excuse is None]
# What the programs of some pages print, among other things.
PRINTED = {
    "python-client.md": (
        "{'type': 'progress', 'epoch': 1, 'loss': 1.0, 'accuracy': 0.5}",
        "ValueError failed after 1 chunks, as asked",
        "it was cancelled by a client",
        "a b c3.0",
    ),
    "README.md": ("ok",),
}


def is_adapter(block: Block) -> bool:
    return "BaseAdapter" in block.text


def of(*languages: str) -> Callable[..., object]:
    chosen = [block for block in BLOCKS if block.language in languages and block.excuse is None]
    return pytest.mark.parametrize("block", chosen, ids=[block.name for block in chosen])


@pytest.fixture(scope="module")
def run(gateway: Served) -> str:
    """A run that is kept, whether it has ended or not. There is one of the tool that the command line's page asks for, too."""
    gateway.client.post("/v1/tools/train_model/stream", json={"epochs": 3}).raise_for_status()
    answer = gateway.client.post("/v1/tools/stream_numbers/runs", json={"count": 3})
    return str(answer.headers["location"]).rpartition("/")[2]


def here(text: str, gateway: Served, run: str) -> str:
    """Return a block's text for this gateway."""
    return re.sub(r"\br_…", run, text.replace("localhost:8000", f"127.0.0.1:{gateway.port}"))


def execute(command: list[str], text: str, gateway: Served, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {"GATEWAY_URL": gateway.url, "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, text], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_every_block_is_run_or_says_why_not() -> None:
    run = {"sh", "js", "html", "jsx", "svelte", "python", "toml", "json"} | TEXTS
    assert [f"{block.name}: {block.language}" for block in BLOCKS if block.language not in run and block.excuse is None] == []
    assert len(BLOCKS) > 20


def test_a_block_is_read_as_it_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text\n\n<!-- not run: so -->\n\n```sh\na\n```\n\n- item\n\n  ```js\n  b\n\n    c\n  ```\n")
    assert [(block.language, block.text, block.excuse, block.line) for block in blocks_of(page)] == [
        ("sh", "a\n", "so", 5),
        ("js", "b\n\n  c\n", None, 11),
    ]


@of("sh")
def test_shell(block: Block, gateway: Served, run: str, tmp_path: Path) -> None:
    # An HTTP error is a failure.
    execute(["bash", "-euc"], f'curl() {{ command curl -sS --fail-with-body "$@"; }}\n{here(block.text, gateway, run)}', gateway, tmp_path)


@pytest.mark.parametrize("block", [block for block in PYTHON if is_adapter(block)], ids=lambda block: block.name)
def test_adapter(block: Block, gateway: Served, tmp_path: Path) -> None:
    module = tmp_path / f"adapter_{block.path.stem}_{block.line}.py".replace("-", "_")
    module.write_text(block.text)
    compat.install()
    tools = loading.load(str(module)).tools
    assert tools
    if block.file is not None:
        offered = [tool["name"] for tool in gateway.client.get("/v1/tools").json()["tools"]]
        assert set(tools) <= set(offered)


@pytest.mark.parametrize("page", sorted({block.path for block in PYTHON if not is_adapter(block)}), ids=lambda page: page.name)
def test_program(page: Path, gateway: Served, run: str, tmp_path: Path) -> None:
    """The blocks of a page are one program: later ones go on with what earlier ones made."""
    program = "\n".join(block.text for block in PYTHON if block.path == page and not is_adapter(block))
    printed = execute([sys.executable, "-W", "error", "-c"], here(program, gateway, run), gateway, tmp_path)
    for text in PRINTED.get(page.name, ()):
        assert text in printed


@of("toml")
def test_settings(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    text = block.text
    if not re.search(r"^\[|^transport", text, re.MULTILINE):
        # What is shown is of the table that most pages are about.
        text = f"[server]\n{text}"
    (tmp_path / "gateway.toml").write_text(text)
    settings.load(tmp_path / "gateway.toml")


@of("json")
def test_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="session")
@of("js", "html", "jsx", "svelte")
async def test_in_a_page(block: Block, gateway: Served, run: str, browser: BrowserContext, tmp_path: Path) -> None:
    if "/node_modules/" in block.text and not (NODE / "node_modules").is_dir():
        pytest.skip(f"what it loads is not there: {NO_NODE}")
    page = await browser.new_page()
    said: list[str] = []
    failures: list[str] = []
    news = asyncio.Event()

    def note(message: ConsoleMessage) -> None:
        # An HTTP error that a block deals with is no failure of it.
        if not message.text.startswith("Failed to load resource"):
            (failures if message.type == "error" else said).append(message.text)
        news.set()

    def fail(error: Exception) -> None:
        failures.append(str(error))
        news.set()

    def is_over() -> bool:
        """Whether a script has come to its end, and said something where it means to."""
        has_spoken = "console.log" not in block.text or any(text != OVER for text in said)
        return bool(failures) or (has_spoken and (block.language == "html" or OVER in said))

    page.on("console", note)
    page.on("pageerror", fail)
    try:
        text = here(block.text, gateway, run)
        html = text if block.language == "html" else script(block, text, tmp_path)
        await page.route("**/node_modules/**", lambda route: route.fulfill(path=NODE / urlsplit(route.request.url).path.lstrip("/")))
        # Of the gateway's own origin. A page that was made up by `route` would be of no network, and may not ask this one.
        await page.goto(f"{gateway.url}/livez")
        await page.set_content(html)
        if block.language == "js" or "console.log" in block.text:
            async with asyncio.timeout(PATIENCE_S):
                while not is_over():
                    news.clear()
                    await news.wait()
        else:
            # A page that shows what it gets: that has an end.
            await page.get_by_text("ok", exact=True).wait_for(timeout=PATIENCE_S * 1000)
        assert failures == []
    finally:
        await page.close()


def script(block: Block, text: str, folder: Path) -> str:
    """Return a page with a block as its script; what needs a compiler is compiled."""
    if block.language == "js":
        text = text.replace('"./client.js"', '"/client.js"')
        is_module = re.search(r"^import ", text, re.MULTILINE) is not None
        code = f"{text}\nconsole.log('{OVER}')"
        return BODY.format(" type=module", code) if is_module else BODY.format("", f"(async () => {{\n{code}\n}})()")
    esbuild = NODE / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        pytest.skip(f"esbuild is not there: {NO_NODE}")
    build = folder / "build"
    build.mkdir()
    (build / "node_modules").symlink_to(NODE / "node_modules")
    if block.language == "jsx":
        (build / "App.jsx").write_text(text)
    else:
        (build / "App.js").write_text(output(["node", "--input-type=module", "-e", SVELTE_COMPILER], build, text))
    (build / "main.jsx").write_text(REACT if block.language == "jsx" else SVELTE)
    return BODY.format("", output([str(esbuild), *ESBUILD], build).replace("</script", "<\\/script"))


def output(command: list[str], folder: Path, text: str = "") -> str:
    done = subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=[str(page.relative_to(ROOT)) for page in pages()])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in _anchors(linked), f"{target}: there is no such heading"
