"""Two gateway processes on one log: their settings, and how a test asks them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.e2e.harness import JOURNAL_ADAPTER, Served, events_of, served, until, wait_for
from tests.valkey import Valkey

_prefixes = itertools.count(1)


class Pair(NamedTuple):
    """Gateway `a`, which is asked, and gateway `b`, which executes."""

    a: Served
    b: Served


def settings(valkey: Valkey, prefix: str, more: str = "") -> str:
    return f"""
[server]
retry_ms = 100
drain_timeout_s = 2

[runlog]
url = "{valkey.url}"
prefix = "{prefix}:"
lease_ttl_s = 1.5

[[pools]]
name = "journal"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
stop_timeout_s = 20

{more}
"""


@contextmanager
def paired(
    valkey: Valkey, directory: Path, more: str = "", environment: Mapping[str, str] | None = None, packages: Path | None = None
) -> Iterator[Pair]:
    """Two gateways for the time of a block; those that are there at its end have to stop well. `packages`: see `served`."""
    text = settings(valkey, f"pair{next(_prefixes)}", more)
    folders = [directory / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    with ExitStack() as stack:
        a, b = (
            stack.enter_context(served(folder, settings=text, environment=environment, ready=False, packages=packages))
            for folder in folders
        )
        wait_for(a.is_ready, "the first gateway's workers")
        wait_for(b.is_ready, "the second gateway's workers")
        yield Pair(a, b)


async def start(gateway: Served, tool: str, headers: dict[str, str] | None = None, query: str = "", **arguments: Any) -> str:
    """Start a run in the background and return its id."""
    async with gateway.http() as client:
        answer = await client.post(f"/v1/tools/{tool}/runs{query}", json=arguments, headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run"])


async def state(gateway: Served, run: str) -> dict[str, Any]:
    async with gateway.http() as client:
        answer = await client.get(f"/v1/runs/{run}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


async def ended(gateway: Served, run: str) -> dict[str, Any]:
    """Wait for a run's end and return its state."""
    await until(lambda: "end" in gateway.client.get(f"/v1/runs/{run}").json(), f"the end of {run}")
    return await state(gateway, run)


def chunk_events(text: bytes) -> list[bytes]:
    """The chunks of an SSE response, byte for byte."""
    return [event for event in text.split(b"\n\n") if b"\nevent: " not in event and b"\ndata: " in event]


async def first_chunk(response: httpx.Response) -> AsyncIterator[Any]:
    """Return the events of a response from its first chunk on; the response is closed when nobody has them any more."""
    events = events_of(response)
    async for event in events:
        if event.event == "message":
            break
    return events
