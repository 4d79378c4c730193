"""Order and completeness: whoever follows, whenever, sees exactly what was recorded."""

from __future__ import annotations

import asyncio
import random

from gateway.events import Chunks, Status
from tests.runlog.shared.conftest import Gateways, Seen, Valkey, batch, ok


async def test_fifty_runs_at_once_with_followers_that_come_and_go(shared_valkey: Valkey, gateways: Gateways) -> None:
    rng = random.Random(4)
    all_of_them = [await gateways(shared_valkey, entry_bytes=300, read_entries=8) for _ in range(3)]
    chunks, runs = 120, 50

    async def record(number: int, seed: int) -> None:
        rng = random.Random(seed)
        run = await all_of_them[number % 3].run(f"r_{number:02}")
        started.release()
        done = 0
        while done < chunks:
            count = min(rng.randint(1, 7), chunks - done)
            run.appended(batch(done + 1, *(truth(number, n) for n in range(done + 1, done + count + 1))))
            done += count
            if rng.random() < 0.1:
                run.status(Status("running", {"at": done}))
            for _ in range(rng.randint(0, 3)):
                await asyncio.sleep(0)
        run.ended(ok(chunks))

    async def visit(number: int, seed: int) -> Seen:
        """Come, go in the middle now and then, and stay the last time."""
        rng = random.Random(seed)
        gateway = all_of_them[rng.randrange(3)]
        for _ in range(rng.randint(0, 2)):
            passing = Seen()
            try:
                following = await gateway.log.follow(f"r_{number:02}", passing)
            except ValueError:
                break
            await passing.has(rng.randint(1, chunks))
            following.close()
            check(number, passing)
        seen = Seen()
        while True:
            try:
                await gateway.log.follow(f"r_{number:02}", seen)
                break
            except ValueError:
                await asyncio.sleep(0.01)
        await seen.over()
        return seen

    def check(number: int, seen: Seen) -> None:
        assert seen.gaps == []
        assert seen.payloads == {n: truth(number, n) for n in range(1, len(seen.payloads) + 1)}
        firsts = [event.first for event in seen.events if isinstance(event, Chunks)]
        assert firsts == sorted(firsts)

    started = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        for number in range(runs):
            tasks.create_task(record(number, rng.random().__hash__()))
        for _ in range(runs):
            await started.acquire()
        visits = [(number % runs, tasks.create_task(visit(number % runs, rng.random().__hash__()))) for number in range(2 * runs)]
    for number, task in visits:
        check(number, task.result())
        assert len(task.result().payloads) == chunks
        assert task.result().end == ok(chunks)


def truth(run: int, number: int) -> bytes:
    return b'{"run":%d,"n":%d}' % (run, number)
