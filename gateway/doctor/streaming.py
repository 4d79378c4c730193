"""What a path does to streams: buffering, heartbeats, idle cuts, compression, headers, and whether a leaving gets through."""

from __future__ import annotations

import asyncio
import itertools
import statistics

import httpx

from gateway.doctor.advice import cure
from gateway.doctor.finding import Finding, Grade
from gateway.doctor.probe import Plan, Reading, read_probe

# Twenty events, ten a second. Events that came later than others by so much, or in fewer groups than half, were held up.
PACED = Plan(chunks=20, interval_ms=100)
HELD_UP_S = 0.5
BEATS = Plan(chunks=0, silent_ms=3500, heartbeat_ms=1000)
COMPRESSIBLE = Plan(chunks=5, interval_ms=50, bytes=2000)
ENDLESS = Plan(chunks=0, silent_ms=60_000)
LEAVE_PATIENCE_S = 5.0


async def buffering(client: httpx.AsyncClient, proxy: str) -> list[Finding]:
    """Whether events come when they are sent, and how evenly."""
    reading = await read_probe(client, PACED)
    arrivals = [arrived for _, arrived in reading.events]
    if len(arrivals) < PACED["chunks"]:
        measured = f"{len(arrivals)} of {PACED['chunks']} events came, then the stream was cut after {reading.over_s:.1f} s"
        return [Finding("buffering", Grade.PROBLEM, measured, cure("buffered", proxy))]
    delays = [arrived - sent for sent, arrived in reading.events]
    late_s = max(delays) - min(delays)
    groups = 1 + sum(later - earlier > PACED["interval_ms"] / 2000 for earlier, later in itertools.pairwise(arrivals))
    jitter_s = statistics.pstdev(delays)
    first_s = reading.headers_s or 0.0
    numbers = {
        "first_byte_ms": round(first_s * 1000, 1),
        "jitter_ms": round(jitter_s * 1000, 2),
        "latest_ms": round(late_s * 1000, 1),
        "groups": groups,
    }
    if late_s > HELD_UP_S and groups <= len(arrivals) / 2:
        measured = f"{len(arrivals)} events over 2 s came in {groups} group{'s' * (groups > 1)}, the first {late_s:.1f} s late"
        return [Finding("buffering", Grade.PROBLEM, measured, cure("buffered", proxy), numbers)]
    measured = f"first byte after {first_s * 1000:.1f} ms, events as they were sent, jitter {jitter_s * 1000:.1f} ms"
    return [Finding("buffering", Grade.OK, measured, numbers=numbers)]


async def heartbeats(client: httpx.AsyncClient, proxy: str) -> list[Finding]:
    """Whether comment lines come through a silent stream."""
    reading = await read_probe(client, BEATS)
    beats = reading.heartbeats
    # What a buffer held back comes all at once, at the end.
    in_time = sum(at < reading.over_s - HELD_UP_S for at in beats)
    numbers = {"came": len(beats), "in_time": in_time}
    if in_time >= 2:
        return [Finding("heartbeat", Grade.OK, "heartbeats come through a silent stream", numbers=numbers)]
    measured = "heartbeats don't come through a silent stream in time"
    return [Finding("heartbeat", Grade.PROBLEM, measured, cure("buffered", proxy), numbers)]


async def idle(client: httpx.AsyncClient, proxy: str, *, seconds: float) -> list[Finding]:
    """Whether a stream that says nothing at all is cut, and whether the gateway's heartbeats come often enough to prevent it."""
    reading = await read_probe(client, Plan(chunks=0, silent_ms=round(seconds * 1000)))
    if reading.complete:
        more = "" if seconds >= 60 else "; --idle 120 looks further"
        measured = f"a silent stream lived for {seconds:g} s{more}"
        return [Finding("idle cut", Grade.OK, measured, numbers={"cut_after_s": None, "looked_s": seconds})]
    heartbeat_s = reading.first.get("heartbeat_ms", 10_000) / 1000
    numbers = {"cut_after_s": round(reading.over_s, 1), "looked_s": seconds, "heartbeat_s": heartbeat_s}
    measured = f"a silent stream is cut after {reading.over_s:.1f} s"
    if reading.over_s > heartbeat_s * 1.5:
        measured += f"; heartbeats every {heartbeat_s:g} s prevent that"
        return [Finding("idle cut", Grade.NOTE, measured, cure("idle", proxy), numbers)]
    advice = f"{cure('idle', proxy)}; or set `[server] heartbeat_s` to {max(reading.over_s / 3, 0.1):.1f}"
    return [Finding("idle cut", Grade.PROBLEM, f"{measured}; heartbeats come every {heartbeat_s:g} s", advice, numbers)]


async def compression(client: httpx.AsyncClient, proxy: str) -> list[Finding]:
    """Whether a stream is compressed for a client that would take that."""
    reading = await read_probe(client, COMPRESSIBLE, headers={"Accept-Encoding": "gzip, deflate"})
    encoding = reading.headers.get("content-encoding", "identity")
    numbers = {"content_encoding": encoding}
    if encoding == "identity":
        return [Finding("compression", Grade.OK, "streams are not compressed", numbers=numbers), *_headers(reading, proxy)]
    measured = f"streams are compressed ({encoding}): events wait in the compressor"
    return [Finding("compression", Grade.PROBLEM, measured, cure("compressed", proxy), numbers), *_headers(reading, proxy)]


def _headers(reading: Reading, proxy: str) -> list[Finding]:
    """Whether a stream's headers arrive as they were sent, and what else was added to the request."""
    wrong = []
    if not reading.headers.get("content-type", "").startswith("text/event-stream"):
        wrong.append(f"Content-Type is {reading.headers.get('content-type', 'gone')}")
    if "no-transform" not in reading.headers.get("cache-control", ""):
        wrong.append(f"Cache-Control is {reading.headers.get('cache-control', 'gone')}, without no-transform")
    added = sorted(reading.first.get("headers", {}).keys() - {"accept-encoding"})
    seen = f"; the way adds {', '.join(added)}" if added else ""
    if wrong:
        return [Finding("headers", Grade.WARNING, "; ".join(wrong) + seen, cure("headers", proxy))]
    return [Finding("headers", Grade.OK, f"a stream's headers arrive as they were sent{seen}")]


async def disconnect(client: httpx.AsyncClient, proxy: str) -> list[Finding]:
    """Whether the gateway hears that a client has left."""
    reading = await read_probe(client, ENDLESS, leave=True)
    probe = reading.first.get("probe")
    if probe is None:
        measured = f"the first event of a silent stream did not come in {reading.over_s:.0f} s, so nobody knows"
        return [Finding("disconnect", Grade.PROBLEM, measured, cure("buffered", proxy))]
    clock = asyncio.get_running_loop().time
    began = clock()
    while clock() - began < LEAVE_PATIENCE_S:
        response = await client.get(f"/v1/probe/{probe}")
        if response.status_code == 404:
            measured = "another gateway answered, so it can't be said; ask one gateway directly"
            return [Finding("disconnect", Grade.NOTE, measured)]
        if response.status_code == 200 and response.json()["state"] == "left":
            took_ms = (clock() - began) * 1000
            return [Finding("disconnect", Grade.OK, f"a leaving is heard of in {took_ms:.0f} ms", numbers={"heard_ms": round(took_ms)})]
        await asyncio.sleep(0.02)
    measured = f"the gateway has not heard in {LEAVE_PATIENCE_S:g} s that its client has left: its tool would go on"
    return [Finding("disconnect", Grade.PROBLEM, measured, cure("disconnect", proxy))]
