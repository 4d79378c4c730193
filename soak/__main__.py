"""`python -m soak`: see the package. Exit code 0 when nothing was lost and nothing is left, else 1."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from soak.account import Account
from soak.clients import CLIENTS
from soak.verdict import Sample, Verdict, judge, scrape
from tests.e2e.harness import Served, served, until
from tests.valkey import Valkey

ADAPTER = Path(__file__).with_name("adapter.py")
KILL_EVERY_S = 5.0
SAMPLE_EVERY_S = 1.0
# What the first of it makes grow once: caches, the allocator's arenas, what is kept of runs. They took four minutes to settle.
WARM_UP = 0.4


def settings(log: str) -> str:
    return f"""
[runlog]
url = "{log}"
# Kept runs are no leak, but would look like one until the first of them are forgotten, or their logs reach the limit.
ttl_s = 10
limit_bytes = 33554432

[[pools]]
name = "main"
adapter = "{ADAPTER}"
size = 2
concurrency = 16
[[pools]]
name = "other"
adapter = "{ADAPTER}"
size = 1
concurrency = 8
"""


@contextlib.contextmanager
def log_url(kind: str) -> Iterator[str]:
    """The run log's URL: in the gateway, or a Valkey server of our own."""
    if kind == "memory":
        yield "memory://"
        return
    valkey = Valkey()
    try:
        yield valkey.url
    finally:
        valkey.close()


async def load(gateway: Served, account: Account, chance: random.Random, until_s: float) -> None:
    """One client after the other, each by chance, until the time is over."""
    async with gateway.http() as client:
        while time.monotonic() < until_s:
            (kind,) = chance.choices(list(CLIENTS), list(CLIENTS.values()))
            try:
                await kind(gateway, client, account, chance)
            except Exception as exc:
                account.faults.append(f"{kind.__name__}: {exc!r}")


async def kill(gateway: Served, account: Account, chance: random.Random, until_s: float) -> None:
    """Kill a worker every few seconds, when none is missing: two pools with none at all would be another test."""
    while time.monotonic() + KILL_EVERY_S < until_s:
        await asyncio.sleep(KILL_EVERY_S)
        workers = gateway.workers()
        if len(workers) >= 3:
            account.kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)


async def watch(gateway: Served, samples: list[Sample], until_s: float) -> None:
    while time.monotonic() < until_s:
        samples.append(Sample.of(gateway))
        await asyncio.sleep(SAMPLE_EVERY_S)


async def soak(gateway: Served, minutes: float, clients: int, seed: int) -> Verdict:
    """Load the gateway, let it come to rest, and judge."""
    account, samples = Account(), list[Sample]()
    # A first client of each kind, so that what is made once is there before the first look.
    async with gateway.http() as client:
        for kind in CLIENTS:
            await kind(gateway, client, Account(), random.Random(0))
    await until(gateway.is_idle, "an idle gateway")
    before, counted = Sample.of(gateway), scrape(gateway)
    end = time.monotonic() + minutes * 60
    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(load(gateway, account, random.Random(f"{seed}-{number}"), end))
        tasks.create_task(kill(gateway, account, random.Random(seed), end))
        tasks.create_task(watch(gateway, samples, end))
    with contextlib.suppress(AssertionError):
        await until(lambda: gateway.is_ready() and gateway.is_idle() and not Sample.of(gateway).more_than(before), "rest", 30)
    return judge(account, before, Sample.of(gateway), samples[int(len(samples) * WARM_UP) :], counted, scrape(gateway))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=24, help="at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", choices=("memory", "valkey"), default="memory", help="where the run log is")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, log_url(chosen.log) as url, served(Path(folder), settings=settings(url)) as gateway:
        verdict = asyncio.run(soak(gateway, chosen.minutes, chosen.clients, chosen.seed))
    verdict.show()
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
