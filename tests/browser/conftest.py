"""A real browser, a web server with the example pages, and a gateway that allows pages of that origin."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Page, async_playwright

from tests.e2e.harness import JOURNAL_ADAPTER, ROOT, Served, served

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name that was rebound to this machine.
    "--host-resolver-rules=MAP rebound.example 127.0.0.1",
]


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def pages() -> Iterator[str]:
    """The origin that serves examples/pages, which the gateway allows."""
    with served_pages() as origin:
        yield origin


@pytest.fixture(scope="session")
def other_pages() -> Iterator[str]:
    """An origin of the same host and another port, which nobody has allowed."""
    with served_pages() as origin:
        yield origin


@contextlib.contextmanager
def served_pages() -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(ROOT / "examples" / "pages"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, pages: str) -> Iterator[Served]:
    """A gateway with the journal's tools. An EventSource comes back after 50 ms instead of 2 s."""
    settings = f"""
[server]
retry_ms = 50
allowed_origins = ["{pages}"]
allowed_credentials = true

[[pools]]
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
"""
    with served(tmp_path_factory.mktemp("browser-gateway"), settings=settings) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def launched(profile: Path) -> AsyncIterator[BrowserContext]:
    """A browser with a profile of its own, for the time of a block. Skips the test where there is none."""
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"there is no browser at {CHROMIUM}; on Debian: apt-get install chromium")
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(profile, executable_path=CHROMIUM, args=FLAGS, headless=True)
        yield context
        await context.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserContext]:
    """The browser of these tests."""
    async with launched(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: BrowserContext) -> AsyncIterator[Page]:
    """A tab, closed after the test."""
    page = await browser.new_page()
    yield page
    await page.close()
