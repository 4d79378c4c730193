"""The load: each client is one request of one kind, with arguments by chance, and tells the account what it saw."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from soak.account import UNHEARD, Account
from tests.e2e.harness import Served, Story, read_ndjson, read_sse
from tests.e2e.socketclient import joined

NDJSON = {"Accept": "application/x-ndjson"}
Client = Callable[[Served, httpx.AsyncClient, Account, random.Random], Awaitable[None]]


def judge(account: Account, kind: str, story: Story, total: int, after: int = 0) -> None:
    """Enter a story that was read to its end."""
    end = story.end or {"status": "cut"}
    account.check(kind, story.numbers, [chunk["n"] for chunk in story.chunks], total if end["status"] == "ok" else None, after)
    account.ended(kind, end["status"], end.get("error", {}).get("type", ""))


async def refused(account: Account, kind: str, response: httpx.Response) -> bool:
    """Enter a request that got a problem instead of a stream."""
    if response.status_code < 400:
        return False
    await response.aread()
    account.ended(kind, "error", response.json().get("type", ""))
    return True


async def sse(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    total = chance.choice((3, 50, 2000))
    async with client.stream("GET", f"/v1/tools/count/stream?chunks={total}") as response:
        if not await refused(account, "sse", response):
            judge(account, "sse", await read_sse(response), total)


async def ndjson(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    total = chance.choice((20, 100))
    async with client.stream("POST", "/v1/tools/paced/stream", json={"chunks": total}, headers=NDJSON) as response:
        if not await refused(account, "ndjson", response):
            judge(account, "ndjson", await read_ndjson(response), total)


async def unary(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    a, b = chance.randrange(1000), chance.randrange(1000)
    response = await client.post("/v1/tools/add/call", json={"a": a, "b": b})
    if not await refused(account, "unary", response):
        account.check("unary", [response.json()["result"] - a - b + 1], [1], 1)
        account.ended("unary", "ok")


async def leaver(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    """Goes away somewhere in the middle, without a word."""
    tool = chance.choice(("endless", "paced?chunks=100000", "heavy?chunks=100000"))
    name, _, query = tool.partition("?")
    lines: list[dict[str, Any]] = []
    async with client.stream("GET", f"/v1/tools/{name}/stream?{query}", headers=NDJSON) as response:
        if await refused(account, "leaver", response):
            return
        stay = chance.randrange(200)
        async for line in response.aiter_lines():
            if line:
                lines.append(json.loads(line))
            if len(lines) > stay or "end" in (lines[-1] if lines else ()):
                break
    chunks = [line for line in lines if "seq" in line]
    account.check("leaver", [line["seq"] for line in chunks], [line["data"]["n"] for line in chunks], None)
    end = lines[-1].get("end") if lines else None
    account.ended("leaver", "left" if end is None else end["status"], (end or {}).get("error", {}).get("type", ""))


async def slow(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    """Reads much, with pauses: its tool has to wait, and nothing may be missing."""
    numbers: list[int] = []
    end: dict[str, Any] = {"status": "cut"}
    async with client.stream("GET", "/v1/tools/heavy/stream?chunks=300", headers=NDJSON) as response:
        if await refused(account, "slow", response):
            return
        async for line in response.aiter_lines():
            event = json.loads(line) if line else {}
            if "seq" in event:
                numbers.append(event["data"]["n"])
                if len(numbers) % 30 == 0:
                    await asyncio.sleep(chance.random() / 5)
            end = event.get("end", end)
    account.check("slow", numbers, numbers, 300 if end["status"] == "ok" else None)
    account.ended("slow", end["status"], end.get("error", {}).get("type", ""))


async def background(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    """Starts a run, reads half of it, comes back for the rest by the last event id."""
    started = await client.post("/v1/tools/paced/runs", json={"chunks": 60})
    if await refused(account, "background", started):
        return
    path = f"/v1/runs/{started.json()['run']}/events"
    seen, last = 0, ""
    async with client.stream("GET", path, headers=NDJSON) as response:
        async for line in response.aiter_lines():
            event = json.loads(line) if line else {}
            if "seq" in event:
                seen = event["seq"]
                account.check("background", [seen], [event["data"]["n"]], None, seen - 1)
            if seen >= 30 or "end" in event:
                break
    last = f"{started.json()['run']}.{seen}"
    async with client.stream("GET", path, headers={"Last-Event-ID": last}) as response:
        judge(account, "background", await read_sse(response), 60, seen)


async def canceller(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    """Starts an endless run and stops it by name."""
    started = await client.post("/v1/tools/endless/runs")
    if await refused(account, "canceller", started):
        return
    await asyncio.sleep(chance.random() / 2)
    state = (await client.delete(f"/v1/runs/{started.json()['run']}")).json()
    account.ended("canceller", state["state"], state["end"].get("error", {}).get("type", "") if state["state"] != "cancelled" else "")


async def socket(gateway: Served, client: httpx.AsyncClient, account: Account, chance: random.Random) -> None:
    """Several runs on one socket, some with credit; one is left, one is cancelled, or all of them at once."""
    async with joined(gateway) as peer:
        names = [str(number) for number in range(chance.randrange(1, 5))]
        for name in names:
            payload: dict[str, Any] = {"tool": "paced", "args": {"chunks": 40, "interval_ms": 5}}
            await peer.say("subscribe", id=name, payload=payload | ({"credit": 100} if chance.random() < 0.5 else {}))
        if chance.random() < 0.2:
            for _ in names:
                account.ended("socket", UNHEARD)
            return
        if chance.random() < 0.3:
            await peer.say("cancel", id=names[0])
        open_names = set(names)
        while open_names:
            frame = await peer.hear()
            if frame["type"] in ("complete", "error"):
                name = frame["id"]
                open_names.discard(name)
                chunks = peer.chunks(name)
                status = frame["payload"]["status"] if frame["type"] == "complete" else "error"
                values = [payload["n"] for _, payload in chunks]
                account.check("socket", [int(eid.rpartition(".")[2]) for eid, _ in chunks], values, 40 if status == "ok" else None)
                account.ended("socket", status, str(frame["payload"].get("type", "")))


# And how often each comes.
CLIENTS: dict[Client, int] = {sse: 6, ndjson: 3, unary: 6, leaver: 4, slow: 1, background: 2, canceller: 2, socket: 3}
