"""One gateway for all blocks, which serves the docs' own adapters too, and a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext

from tests.browser.conftest import launched
from tests.docs.blocks import all_blocks
from tests.e2e.harness import DEMO_ADAPTER, Served, served

# The gRPC front door, which the page on services has served over HTTP.
SERVICE = '\n[[services]]\nname = "itself"\naddress = "{address}"\n'
POOL = '\n[[pools]]\nname = "{name}"\nadapter = "{adapter}"\nsize = {size}\n'


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with the demo tools, those that the docs write into a file of their own, and its own gRPC front door as a service."""
    folder = tmp_path_factory.mktemp("docs")
    settings = POOL.format(name="default", adapter=DEMO_ADAPTER, size=4)
    for block in all_blocks():
        if block.file is not None and block.excuse is None:
            adapter = folder / block.path.stem / block.file
            adapter.parent.mkdir(exist_ok=True)
            adapter.write_text(block.text)
            settings += POOL.format(name=f"{block.path.stem}-{block.line}", adapter=adapter, size=1)
    address = f"unix:{folder}/grpc.sock"
    settings += SERVICE.format(address=address)
    with served(folder, "--grpc-address", address, settings=settings) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrowserContext]:
    """The browser that the blocks' pages are opened in."""
    async with launched(tmp_path_factory.mktemp("docs-profile")) as context:
        yield context
