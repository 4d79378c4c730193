"""A probe stream as it arrives: each event with the time it came and the time it says it was sent.

The gateway's side is endpoints/probe.py. Times are this process's clock; nothing compares the two clocks but by their differences.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

PATH = "/v1/probe/stream"
GRACE_S = 15.0
# How long the first event may take, where that is all that is waited for.
FIRST_S = 5.0


@dataclass(slots=True)
class Reading:
    """What came of one probe. Times are seconds since the request was sent; `events`: (sent by the gateway's clock, arrived)."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    first: dict[str, Any] = field(default_factory=dict)
    headers_s: float | None = None
    events: list[tuple[float, float]] = field(default_factory=list)
    heartbeats: list[float] = field(default_factory=list)
    # When it ended; `complete`: by its own `end`, and not cut.
    over_s: float = 0.0
    complete: bool = False


class Plan(dict[str, int]):
    """The parameters of a probe: chunks, interval_ms, bytes, silent_ms, heartbeat_ms."""

    @property
    def duration_s(self) -> float:
        """How long it takes by itself."""
        return (self.get("chunks", 10) * self.get("interval_ms", 100) + self.get("silent_ms", 0)) / 1000


async def read_probe(client: httpx.AsyncClient, plan: Plan, *, headers: Mapping[str, str] | None = None, leave: bool = False) -> Reading:
    """Return what came of a probe; one that is refused has only its status and problem. `leave`: go as soon as the first event is there.

    Raises:
        httpx.TransportError: nobody was there.
    """
    reading = Reading()
    clock = asyncio.get_running_loop().time
    began = clock()
    wanted = {"Accept-Encoding": "identity", **(headers or {})}
    try:
        async with (
            # When that is over, what has come is all that came.
            asyncio.timeout(FIRST_S if leave else plan.duration_s + GRACE_S),
            client.stream("GET", PATH, params=dict(plan), headers=wanted, timeout=httpx.Timeout(10, read=None)) as response,
        ):
            reading.status, reading.headers = response.status_code, {name.lower(): value for name, value in response.headers.items()}
            reading.headers_s = clock() - began
            if response.status_code != 200:
                reading.problem = (await response.aread())[:300].decode(errors="replace")
                return reading
            lines = _Lines()
            # Decoded where the path has compressed it.
            async for data in response.aiter_bytes():
                now = clock() - began
                for line in lines.feed(data):
                    _take(reading, line, now)
                if leave and reading.first:
                    break
    except TimeoutError:
        pass
    except httpx.TransportError:
        if reading.status == 0:
            raise
    reading.over_s = clock() - began
    return reading


class _Lines:
    """Cuts what arrives into lines, of which the last may be incomplete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


def _take(reading: Reading, line: str, now: float) -> None:
    if line == ": hb":
        reading.heartbeats.append(now)
    elif line == "event: end":
        reading.complete = True
    elif line.startswith("data: "):
        data = json.loads(line[6:])
        if "probe" in data:
            reading.first = data
        elif "n" in data:
            reading.events.append((data["at_ms"] / 1000, now))
