"""One gateway for all blocks, which serves the docs' own adapters too, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, async_playwright

from tests.browser.conftest import CHROMIUM, FLAGS
from tests.docs.blocks import all_blocks
from tests.e2e.harness import DEMO_ADAPTER, Served, served

POOL = '\n[[pools]]\nname = "{name}"\nadapter = "{adapter}"\nsize = {size}\n'


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with the demo tools, and with those that the docs write into a file of their own."""
    folder = tmp_path_factory.mktemp("docs")
    settings = POOL.format(name="default", adapter=DEMO_ADAPTER, size=4)
    for block in all_blocks():
        if block.file is not None and block.excuse is None:
            adapter = folder / block.path.stem / block.file
            adapter.parent.mkdir(exist_ok=True)
            adapter.write_text(block.text)
            settings += POOL.format(name=f"{block.path.stem}-{block.line}", adapter=adapter, size=1)
    with served(folder, settings=settings) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserContext]:
    """A browser with a profile of its own."""
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"there is no browser at {CHROMIUM}; on Debian: apt-get install chromium")
    async with async_playwright() as playwright:
        profile: Path = tmp_path_factory.mktemp("docs-profile")
        context = await playwright.chromium.launch_persistent_context(profile, executable_path=CHROMIUM, args=FLAGS, headless=True)
        yield context
        await context.close()
