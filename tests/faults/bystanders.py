"""Other clients of the same gateway while something goes wrong: they must lose nothing, and hardly wait.

One reads a stream that never ends, by SSE; one does the same on a socket; one starts short streams, one after the other.
All on a pool of their own, so that whatever a fault does to a worker is not theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

from tests.e2e.harness import Served, events_of, read_sse, until
from tests.e2e.socketclient import joined

POOL = "quiet"
SHORT_CHUNKS = 20
# The longest that any of them may wait for its next chunk or answer: two busy cores add much, a blocked event loop more.
PATIENCE_S = 3.0


class Bystanders:
    """What they have had so far. `check` is for any moment, `chunks` and `answers` count what came."""

    def __init__(self) -> None:
        self.chunks = 0
        self.answers = 0
        self.longest_wait_s = 0.0
        self._since = time.monotonic()

    async def read(self, gateway: Served) -> None:
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/endless_async/stream?tag=bystander&_pool={POOL}") as response:
            async for event in events_of(response):
                if event.event == "message":
                    self._took(event.json()["n"], int(event.id.rpartition(".")[2]))
                else:
                    assert event.event in ("start", "status"), event

    async def listen(self, gateway: Served) -> None:
        async with joined(gateway) as socket:
            await socket.say("subscribe", id="a", payload={"tool": "endless_async", "args": {"tag": "bystander"}, "pool": POOL})
            number = 0
            async for text in socket.socket:
                frame = json.loads(text)
                assert frame["type"] in ("start", "status", "next"), frame
                if frame["type"] == "next":
                    number += 1
                    assert (frame["payload"]["n"], frame["eid"].rpartition(".")[2]) == (number, str(number))

    async def ask(self, gateway: Served) -> None:
        while True:
            began = time.monotonic()
            # A connection each: whether new ones are taken is part of the question.
            async with (
                gateway.http() as client,
                client.stream("GET", f"/v1/tools/numbered/stream?tag=bystander&count={SHORT_CHUNKS}&_pool={POOL}") as answer,
            ):
                assert answer.status_code == 200, await answer.aread()
                story = await read_sse(answer)
            assert story.numbers == list(range(1, SHORT_CHUNKS + 1))
            assert story.end is not None
            assert story.end["status"] == "ok"
            self.answers += 1
            self._waited(began)
            await asyncio.sleep(0.05)

    async def go_on(self) -> None:
        """Return when every one of them has had something new: at the end of a fault, and whenever one wants to know."""
        chunks, answers = self.chunks, self.answers
        await until(lambda: self.chunks > chunks and self.answers > answers, "the bystanders to go on")

    def _took(self, value: int, number: int) -> None:
        assert value == number == self.chunks + 1, f"chunk {value}, numbered {number}, after {self.chunks}"
        self.chunks = number
        self._waited(self._since)
        self._since = time.monotonic()

    def _waited(self, since: float) -> None:
        self.longest_wait_s = max(self.longest_wait_s, time.monotonic() - since)


@contextlib.asynccontextmanager
async def bystanders(gateway: Served, *, patience_s: float = PATIENCE_S) -> AsyncIterator[Bystanders]:
    """Have bystanders for the time of a block, which fails when one of them loses something or waits too long."""
    others = Bystanders()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(way(gateway)) for way in (others.read, others.listen, others.ask)]
        await others.go_on()
        others.longest_wait_s = 0.0
        yield others
        await others.go_on()
        for task in running:
            task.cancel()
    assert others.longest_wait_s < patience_s, f"a bystander waited {others.longest_wait_s:.1f} s"
