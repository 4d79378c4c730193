"""One gateway for all blocks, which serves the docs' own adapters too, and a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext

from tests.browser.conftest import launched
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
    """The browser that the blocks' pages are opened in."""
    async with launched(tmp_path_factory.mktemp("docs-profile")) as context:
        yield context
