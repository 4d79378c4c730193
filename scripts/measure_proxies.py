"""Measure the proxies of deploy/ in front of a gateway, and print the table of docs/how-to/proxies.md (`make proxies`).

Each real proxy runs with its file of deploy/, on this machine. For the idle test its time-out and the heartbeat are shortened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.authority import Authority, Signed
from tests.deploy.http2client import connected
from tests.deploy.proxies import PROXIES, missing, proxied, version
from tests.e2e.harness import JOURNAL_ADAPTER, Served, served, until

CANCELS = 30
IDLE_S = 1
HEARTBEAT_S = 0.25
HEAD = f"""| proxy | HTTP | buffered? | cancel seen after, ms: p50, max | idle time-out of {IDLE_S} s: with heartbeat | without |
|---|---|---|---|---|---|"""


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(_measure(Path(name)))


async def _measure(folder: Path) -> None:
    authority = Authority(folder)
    signed = authority.sign("localhost", name="proxy")
    print(HEAD)
    with _gateway(folder / "silent", 60) as silent, _gateway(folder / "beating", HEARTBEAT_S) as beating:
        for name in PROXIES:
            reason = missing(name)
            if reason is not None:
                print(f"| {name} | not measured: {reason} | | | | |")
                continue
            with proxied(name, silent.port, signed, folder / name) as port:
                buffered = await _is_buffered(silent, port, authority)
                cancels = [await _cancel_ms(silent, port, authority, f"{name}-{number}") for number in range(CANCELS)]
            kept = await _survives(name, beating, authority, signed, folder)
            cut = not await _survives(name, silent, authority, signed, folder)
            print(_row(name, buffered, cancels, kept, cut))


def _row(name: str, buffered: bool, cancels: list[float], kept: bool, cut: bool) -> str:
    title = f"{name if name == 'nginx' else name.capitalize()} {version(name)}"
    held, times = "yes" if buffered else "no", f"{statistics.median(cancels):.1f}, {max(cancels):.1f}"
    return f"| {title} | 2 | {held} | {times} | {'stays open' if kept else 'cut'} | {'cut' if cut else 'stays open'} |"


def _gateway(folder: Path, heartbeat_s: float) -> contextlib.AbstractContextManager[Served]:
    folder.mkdir()
    settings = f"""
[server]
heartbeat_s = {heartbeat_s}
first_byte_hold_s = 0.1

[[pools]]
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16
"""
    return served(folder, settings=settings)


async def _is_buffered(gateway: Served, port: int, authority: Authority) -> bool:
    """Whether a chunk is held back until there is more."""
    tag = f"buffered-{port}"
    async with connected(port, authority.client_context()) as client:
        stream = client.request(f"/v1/tools/gated/stream?tag={tag}&chunks=2")
        try:
            await stream.until(b'"n":1')
        except TimeoutError:
            return True
        finally:
            gateway.open_gate(tag, 2)
    return False


async def _cancel_ms(gateway: Served, port: int, authority: Authority, tag: str) -> float:
    """The time from the client's RST_STREAM to the exception at the tool's `await`."""
    async with connected(port, authority.client_context()) as client:
        stream = client.request(f"/v1/tools/silent/stream?tag={tag}")
        await until(lambda: gateway.journal(tag) == ["start"], "the tool to begin")
        left = time.monotonic()
        stream.leave()
        await until(lambda: "finally" in gateway.journal(tag), "the tool to stop")
    entries = [json.loads(line) for line in (gateway.directory / "journal").read_text().splitlines()]
    # One clock for all processes of this machine.
    return 1000 * next(entry["at"] - left for entry in entries if (entry["tag"], entry["what"]) == (tag, "finally"))


async def _survives(name: str, gateway: Served, authority: Authority, signed: Signed, folder: Path) -> bool:
    """Whether a silent stream is there after more than twice the idle time-out."""
    where = folder / f"{name}-{gateway.port}"
    tag = where.name
    with proxied(name, gateway.port, signed, where, idle_s=IDLE_S) as port:
        async with connected(port, authority.client_context()) as client:
            stream = client.request(f"/v1/tools/gated/stream?tag={tag}&chunks=2")
            await stream.until(b'"n":1')
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.5 * IDLE_S):
                    await stream.until_over()
            if stream.over:
                return False
            gateway.open_gate(tag, 2)
            await stream.until(b'"status":"ok"')
            return True


if __name__ == "__main__":
    main()
