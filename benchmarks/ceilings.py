"""The proof that neither the upstream nor the load generator is the bottleneck: how fast each is without a target.

Each is measured on its own core with the other end on the target's. In a run both share a core, so together they
can do `1 / (1/upstream + 1/load)` events a second; every case reports besides how busy that core was.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.load.http import EventReader
from benchmarks.load.reader import opened
from benchmarks.process import Cores, running
from benchmarks.targets import post
from benchmarks.upstream.handle import upstream

MESSAGES = 1_000_000
SIZE = 100


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Events of 100 bytes a second."""

    upstream_per_s: float
    load_per_s: float

    @property
    def together_per_s(self) -> float:
        """What both can do on one core."""
        return 1 / (1 / self.upstream_per_s + 1 / self.load_per_s)


def measure(cores: Cores, folder: Path) -> Ceilings:
    """Return the ceilings on these cores."""
    return Ceilings(_upstream(cores, folder), _load(cores, folder))


def _upstream(cores: Cores, folder: Path) -> float:
    with upstream(cores.load, folder / "upstream.log") as target:
        command = ["taskset", "-c", str(cores.target), sys.executable, "-m", "benchmarks.load.drain"]
        answer = subprocess.run([*command, str(target.port), str(MESSAGES), str(SIZE)], check=True, capture_output=True, text=True)
    drained = json.loads(answer.stdout)
    return float(drained["messages"]) / float(drained["seconds"])


def _load(cores: Cores, folder: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.load.blast", str(MESSAGES), str(SIZE)]
    with running(command, core=cores.target, log=folder / "blast.log") as process:
        port = int(process.first_line())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_read(port))


async def _read(port: int) -> float:
    reader = EventReader(post("/", {}), b"\n\n")
    began = time.perf_counter()
    async with opened([reader], port):
        await reader.done
    return reader.events / (time.perf_counter() - began)
