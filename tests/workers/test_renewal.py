"""A local pool that goes on with new options or new code, under streams that nobody may cut."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.workers.lease import LeaseRequest
from gateway.workers.local import replaced
from gateway.workers.options import PoolOptions
from gateway.workers.pool import Pool
from tests.workers.conftest import Holder, Sink, until
from tests.workers.test_pool_of_processes import Connect, call, running, start

CODE = """
from gateway import BaseAdapter, tool

class Tools(BaseAdapter):
    __thread_safe__ = True

    @tool()
    def version(self):
        return {version}

    @tool()
    def {only}(self):
        return None

    @tool(supports_streaming=True)
    async def gated(self, path: str):
        import asyncio, pathlib
        yield 1
        while not pathlib.Path(path).exists():
            await asyncio.sleep(0.005)
        yield 2
"""


def write(path: Path, version: int) -> Path:
    path.write_text(CODE.format(version=version, only=f"only_{version}"))
    return path


def options(path: Path, **more: Any) -> PoolOptions:
    return PoolOptions("local", **{"adapter": f"{path}:Tools", "size": 1, "concurrency": 4, "start_timeout_s": 30.0, **more})


def states(pool: Pool) -> list[str]:
    return [worker["state"] for worker in pool.snapshot()["workers"]]


async def changed(pool: Pool, version: int) -> None:
    """Wait until the catalogue is that of this version, and of no other."""
    await until(lambda: {name for name in pool.tools if name.startswith("only_")} == {f"only_{version}"}, 20)


async def test_new_code_serves_while_the_old_stream_goes_on(connect: Connect, tmp_path: Path) -> None:
    path, gate = write(tmp_path / "tools.py", 1), tmp_path / "gate"
    async with running(connect, adapter=f"{path}:Tools", concurrency=4) as pool:
        sink = Sink()
        await start(pool, "gated", sink, path=str(gate))
        assert await call(pool, "version") == 1
        write(path, 2)
        (old,) = pool.renew(options(path))
        await asyncio.wait_for(replaced(old), 20)
        assert await call(pool, "version") == 2
        assert old.in_flight == 1
        gate.touch()
        async with asyncio.timeout(10):
            await sink.ended.wait()
            await old.ended.wait()
        assert (sink.payloads, sink.end.error) == ([b"1", b"2"], None)
        await changed(pool, 2)
        assert states(pool) == ["ready"]


async def test_code_that_fails_keeps_the_old_worker_and_the_next_one_is_tried_at_once(connect: Connect, tmp_path: Path) -> None:
    path = write(tmp_path / "tools.py", 1)
    async with running(connect, adapter=f"{path}:Tools", concurrency=4) as pool:
        path.write_text("raise RuntimeError('not today')\n")
        pool.renew(options(path))
        await until(lambda: max(worker["restarts"] for worker in pool.snapshot()["workers"]) > 1, 20)
        assert await call(pool, "version") == 1
        write(path, 2)
        pool.renew(options(path))
        await changed(pool, 2)
        assert await call(pool, "version") == 2


async def test_a_pool_grows_and_shrinks_without_cutting_a_stream(connect: Connect, tmp_path: Path) -> None:
    path, gate = write(tmp_path / "tools.py", 1), tmp_path / "gate"
    async with running(connect, adapter=f"{path}:Tools", concurrency=1) as pool:
        pool.renew(options(path, size=3, concurrency=1))
        await until(lambda: states(pool).count("ready") == 3, 20)
        sinks = [Sink() for _ in range(3)]
        for number, sink in enumerate(sinks):
            await start(pool, "gated", sink, f"run {number}", path=str(gate))
        pool.renew(options(path, size=1, concurrency=1))
        await until(lambda: states(pool).count("draining") == 3 and states(pool).count("ready") == 1, 20)
        gate.touch()
        for sink in sinks:
            async with asyncio.timeout(10):
                await sink.ended.wait()
            assert sink.payloads == [b"1", b"2"]
        await until(lambda: states(pool) == ["ready"])
        assert await call(pool, "version") == 1


async def test_a_slot_that_never_came_up_can_be_retired(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "tools.py"
    path.write_text("raise RuntimeError('not today')\n")
    async with running(connect, adapter=f"{path}:Tools", size=2) as pool:
        write(path, 1)
        pool.renew(options(path, size=1))
        await until(lambda: states(pool) == ["ready"], 20)


async def test_new_limits_of_the_queue_hold_at_once(connect: Connect, tmp_path: Path) -> None:
    path, gate = write(tmp_path / "tools.py", 1), tmp_path / "gate"
    async with running(connect, adapter=f"{path}:Tools", concurrency=1, queue_limit=0) as pool:
        await start(pool, "gated", Sink(), path=str(gate))
        with pytest.raises(GatewayError, match="requests wait already"):
            pool.acquire(LeaseRequest(), Holder())
        pool.renew(options(path, concurrency=1, queue_limit=5))
        waiting = Holder()
        pool.acquire(LeaseRequest(), waiting)
        async with asyncio.timeout(20):
            await waiting.leased.wait()  # on the new worker
        waiting.leases[0].release()
        gate.touch()


async def test_a_pool_has_retired_when_its_queue_and_its_streams_have_ended(connect: Connect, tmp_path: Path) -> None:
    path, gate = write(tmp_path / "tools.py", 1), tmp_path / "gate"
    async with running(connect, adapter=f"{path}:Tools", concurrency=1) as pool:
        await start(pool, "gated", Sink(), path=str(gate))
        waiting = Holder()
        pool.acquire(LeaseRequest(), waiting)
        retired = asyncio.create_task(pool.retired())
        gate.touch()
        async with asyncio.timeout(10):
            await waiting.leased.wait()
        assert not retired.done()
        waiting.leases[0].release()
        await asyncio.wait_for(retired, 10)
