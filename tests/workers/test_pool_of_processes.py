"""A local pool with real worker processes and the real transport: what happens when things go wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.call import Affinity, ToolCall
from gateway.errors import Code, GatewayError, ToolFailed
from gateway.transport.base import Channel, StreamCall
from gateway.workers.lease import Lease, LeaseRequest
from gateway.workers.options import PoolOptions
from gateway.workers.pool import Pool
from gateway.workers.toolstream import PLAIN_MARK
from tests.workers.conftest import Holder, Sink, until

ADAPTERS = Path(__file__).with_name("adapters.py")
Connect = Callable[[str], Channel]


@asynccontextmanager
async def running(connect: Connect, **options: Any) -> AsyncIterator[Pool]:
    defaults: dict[str, Any] = {"adapter": f"{ADAPTERS}:Tools", "size": 1, "start_timeout_s": 30.0}
    pool = Pool(PoolOptions("local", **{**defaults, **options}), connect)
    task = asyncio.create_task(pool.run())
    try:
        async with asyncio.timeout(30):
            await pool.started()
        yield pool
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def lease_of(pool: Pool, **request: Any) -> Lease:
    holder = Holder()
    answer = pool.acquire(LeaseRequest(**request), holder)
    if isinstance(answer, Lease):
        return answer
    async with asyncio.timeout(15):
        await holder.leased.wait()
    assert holder.refusals == []
    return holder.leases[0]


async def start(pool: Pool, tool: str, sink: Sink, run_id: str = "run", **arguments: Any) -> StreamCall:
    """Start a streaming tool and wait for its first chunk."""
    call = (await lease_of(pool)).execute(ToolCall(tool, arguments, 60.0), run_id, 60.0, sink)
    async with asyncio.timeout(15):
        await sink.first.wait()
    return call


async def call(pool: Pool, tool: str, **request: Any) -> Any:
    """Call a unary tool and return its result."""
    sink = Sink()
    (await lease_of(pool, **request)).execute(ToolCall(tool, {}, 15.0, streaming=False), "unary", 15.0, sink)
    async with asyncio.timeout(15):
        await sink.ended.wait()
    if sink.end.error is not None:
        raise sink.end.error
    return orjson.loads(sink.payloads[0])


def alive(pid: int) -> bool:
    """Whether the process runs. A zombie does not: whoever should reap it may be slow."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def modes(directory: Path) -> list[int]:
    """The permissions of what is in a directory."""
    return [path.stat().st_mode & 0o777 for path in directory.iterdir()]


async def test_stream_from_a_process_arrives_whole_and_in_order(connect: Connect) -> None:
    async with running(connect) as pool:
        sink = Sink()
        await start(pool, "count", sink, n=5000)
        async with asyncio.timeout(15):
            await sink.ended.wait()
        assert [orjson.loads(payload)["i"] for payload in sink.payloads] == list(range(5000))
        assert (sink.end.error, sink.end.has_final, sink.end.marks) == (None, True, PLAIN_MARK)
        assert pool.snapshot()["in_flight"] == 0
        parameters = pool.tools["count"].parameters
        assert parameters is not None
        assert "n" in parameters["properties"]


async def test_unary_call_and_its_failure(connect: Connect) -> None:
    async with running(connect) as pool:
        assert alive(await call(pool, "pid"))
        with pytest.raises(ToolFailed, match="no such model") as caught:
            await call(pool, "fail")
        assert caught.value.code is Code.NOT_FOUND


async def test_worker_environment_has_the_pools_entries_but_not_the_gateways_settings(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_AUTH__SECRET", "x")
    async with running(connect, env={"OMP_NUM_THREADS": "1"}) as pool:
        names = await call(pool, "environment")
        assert "OMP_NUM_THREADS" in names
        assert "GATEWAY_AUTH__SECRET" not in names


async def test_session_goes_back_to_its_process_until_that_dies(connect: Connect) -> None:
    async with running(connect, size=2, affinity=Affinity.STRICT_QUEUE) as pool:
        await until(lambda: all(worker["state"] == "ready" for worker in pool.snapshot()["workers"]), 30)
        first = await call(pool, "pid", session_id="s")
        others = {await call(pool, "pid") for _ in range(2)}
        assert len(others) == 2
        assert await call(pool, "pid", session_id="s") == first
        os.kill(first, signal.SIGKILL)
        await until(lambda: not alive(first))
        await until(lambda: any(worker["restarts"] for worker in pool.snapshot()["workers"]))
        with pytest.raises(GatewayError) as caught:
            pool.acquire(LeaseRequest("s"), Holder())
        assert caught.value.problem == "session-worker-unavailable"
        pool.forget_session("s")
        assert await call(pool, "pid", session_id="s") != first


async def test_failed_start_shows_what_the_process_printed(connect: Connect) -> None:
    async with running(connect, env={"BREAK_THE_ADAPTER": "1"}, queue_timeout_s=0.05) as pool:
        (reason,) = pool.readiness()
        assert "worker local-1 exited with code 1 before it was ready" in reason
        assert "weights are missing" in reason
        holder = Holder()
        pool.acquire(LeaseRequest(), holder)
        await holder.leased.wait()
        (error,) = holder.refusals
        assert error.problem == "no-workers-available"
        assert "weights are missing" not in error.detail


async def test_missing_interpreter_is_a_reason_not_a_crash(connect: Connect) -> None:
    async with running(connect, python="/nowhere/python") as pool:
        assert "could not be started" in pool.readiness()[0]


async def test_process_that_never_gets_ready_and_ignores_sigterm_is_ended(connect: Connect, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\ntrap '' TERM\necho still loading\nwhile :; do sleep 1; done\n")
    program.chmod(0o755)
    async with running(connect, python=str(program), start_timeout_s=0.5, terminate_timeout_s=0.2) as pool:
        await until(lambda: "was not ready after 0.5 s\nstill loading" in pool.readiness()[0])
        pid = int((tmp_path / "pid").read_text())
    assert not alive(pid)


async def test_killed_worker_fails_its_stream_at_once_and_is_restarted(connect: Connect) -> None:
    async with running(connect) as pool:
        pid = await call(pool, "pid")
        sink = Sink()
        await start(pool, "until_file", sink, path="/nowhere")
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(1):
            await sink.ended.wait()
        assert sink.end.error is not None
        assert sink.end.error.problem == "worker-lost"
        assert await call(pool, "pid") != pid
        (worker,) = pool.snapshot()["workers"]
        assert (worker["state"], worker["restarts"]) == ("ready", 1)


async def test_recycling_starts_a_successor_first_and_cuts_no_stream(connect: Connect, tmp_path: Path) -> None:
    async with running(connect, max_requests=2) as pool:
        old = await call(pool, "pid")
        sink = Sink()
        await start(pool, "until_file", sink, path=str(tmp_path / "go"))
        await until(lambda: [worker["state"] for worker in pool.snapshot()["workers"]] == ["draining", "ready"], 30)
        new = await call(pool, "pid")
        assert new != old
        assert alive(old)
        (tmp_path / "go").touch()
        async with asyncio.timeout(15):
            await sink.ended.wait()
        assert (sink.payloads, sink.end.error) == ([b'"started"', b'"done"'], None)
        await until(lambda: not alive(old))
        await until(lambda: pool.snapshot()["in_flight"] == 0)


async def test_recycling_waits_while_the_last_renewed_process_still_drains(connect: Connect, tmp_path: Path) -> None:
    async with running(connect, max_requests=1) as pool:
        sink = Sink()
        await start(pool, "until_file", sink, path=str(tmp_path / "go"))
        await until(lambda: [worker["state"] for worker in pool.snapshot()["workers"]] == ["draining", "ready"], 30)
        young = await call(pool, "pid")
        assert [await call(pool, "pid") for _ in range(3)] == [young] * 3
        assert len(pool.snapshot()["workers"]) == 2
        (tmp_path / "go").touch()
        await until(lambda: not alive(young), 30)
        assert (sink.payloads, pool.readiness()) == ([b'"started"', b'"done"'], [])


async def test_worker_past_its_age_is_replaced(connect: Connect) -> None:
    async with running(connect, ttl_s=0.2) as pool:
        old = await call(pool, "pid")
        await until(lambda: not alive(old), 30)
        assert await call(pool, "pid") != old


async def test_cancelled_tool_frees_its_place_when_it_has_stopped(connect: Connect) -> None:
    async with running(connect) as pool:
        pid = await call(pool, "pid")
        sink = Sink()
        (await start(pool, "until_file", sink, path="/nowhere")).cancel()
        async with asyncio.timeout(5):
            await sink.ended.wait()
        assert sink.end.cancelled
        assert await call(pool, "pid") == pid
        assert pool.snapshot()["stuck"] == 0
        stops = pool.stops["other"]
        assert stops.count == 1
        assert 0 <= stops.sum < 5


async def test_stuck_tool_has_its_worker_replaced_and_other_streams_get_their_time(connect: Connect, tmp_path: Path) -> None:
    async with running(connect, concurrency=2, stop_timeout_s=0.2, drain_timeout_s=20.0) as pool:
        old = await call(pool, "pid")
        stubborn, patient = Sink(), Sink()
        stuck = await start(pool, "stubborn", stubborn, "run-stuck")
        await start(pool, "until_file", patient, "run-patient", path=str(tmp_path / "go"))
        stuck.cancel()
        await until(lambda: pool.snapshot()["stuck"] == 1)
        assert await call(pool, "pid") != old
        assert alive(old)
        (tmp_path / "go").touch()
        async with asyncio.timeout(15):
            await patient.ended.wait()
        assert patient.payloads == [b'"started"', b'"done"']
        await until(lambda: not alive(old), 15)


async def test_shutdown_leaves_no_process_and_no_file(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # Not place: a socket's path has about a hundred characters.
    folder = tempfile.TemporaryDirectory(prefix="gwt-")
    request.addfinalizer(folder.cleanup)
    place = Path(folder.name)
    monkeypatch.setattr("tempfile.tempdir", folder.name)
    async with running(connect, size=2) as pool:
        await until(lambda: all(worker["state"] == "ready" for worker in pool.snapshot()["workers"]), 30)
        assert {worker["address"].partition("/")[0] for worker in pool.snapshot()["workers"]} == {"unix:"}
        pids = {await call(pool, "pid") for _ in range(2)}
        sink = Sink()
        await start(pool, "child", sink)
        pids.add(orjson.loads(sink.payloads[0]))
        assert len(pids) == 3
        assert modes(place) == [0o700]
    await until(lambda: not any(map(alive, pids)), 5)
    assert modes(place) == []
    assert sink.end.error is not None


async def test_killed_gateway_leaves_no_orphan(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio, os, sys
        from gateway.transport import open_transport
        from gateway.workers.options import PoolOptions
        from gateway.workers.pool import Pool

        async def main():
            async with asyncio.TaskGroup() as tasks:
                pool = Pool(PoolOptions("p", adapter={str(ADAPTERS) + ":Tools"!r}, size=2), open_transport("lane", tasks).connect)
                tasks.create_task(pool.run())
                while any(worker["state"] != "ready" for worker in pool.snapshot()["workers"]):
                    await asyncio.sleep(0.02)
                print("ready", flush=True)

        asyncio.run(main())
    """)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while (line := await process.stdout.readline()) != b"ready\n":
            assert line
    pids = children(process.pid)
    assert len(pids) == 2
    process.kill()
    await process.wait()
    await until(lambda: not any(map(alive, pids)), 10)
