"""The worker process: ready file, addresses, exit codes, signals, the lifeline, health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import worker_pb2 as worker

from .conftest import Process, eventually, run_worker, until_end

ADAPTER = str(Path(__file__).with_name("adapter_for_processes.py"))
Spawn = Callable[..., Any]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.touch()
    return path


@pytest.fixture
def start(spawn: Spawn, journal: Path) -> Spawn:
    async def start(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Process:
        process: Process = await spawn(
            "--adapter", f"{ADAPTER}:Adapter", *arguments, env={"JOURNAL": str(journal), **(env or {})}, **options
        )
        return process

    return start


async def refused(*arguments: str, env: dict[str, str] | None = None) -> tuple[int | None, str]:
    """Run a worker that is to end by itself; return its exit code and what it said."""
    process = await run_worker(*arguments, env=env)
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, stderr.decode()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed process that nobody reaped yet is gone all the same.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def noted(journal: Path) -> list[str]:
    return journal.read_text().split()


def listening(port: int) -> list[str]:
    """Return the addresses on which a port is listened on, as hexadecimal text."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return [fields[1].rpartition(":")[0] for fields in lines if fields[1].endswith(f":{port:04X}") and fields[3] == "0A"]


async def test_ready_file_holds_the_port_and_the_worker_serves_on_loopback_only(start: Spawn) -> None:
    process = await start("--worker-id", "w-1")
    assert process.ready.isdigit()
    assert await process.client.values("count") == [0, 1, 2]
    assert (await process.client.worker.Describe(worker.DescribeRequest())).worker_id == "w-1"
    bound = listening(int(process.ready))
    assert bound
    # 127.0.0.1 as the kernel writes it, alone or mapped into IPv6.
    assert all(address.endswith("0100007F") for address in bound)
    assert await process.end() == 0


async def test_unix_socket_is_served_for_its_owner_only(start: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    process = await start("--listen", f"unix:{path}")
    assert process.ready == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await process.client.values("count") == [0, 1, 2]
    assert await process.end() == 0


async def test_health_says_serving_and_reflection_lists_the_services(start: Spawn) -> None:
    process = await start()
    health = health_pb2_grpc.HealthStub(process.client.channel)
    for service in ("", "snakepit.bridge.BridgeService", "gateway.rpc.WorkerService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(process.client.channel)
    call = reflection.ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {service.name for service in (await call.read()).list_services_response.service}
    await call.done_writing()
    assert {"snakepit.bridge.BridgeService", "gateway.rpc.WorkerService", "grpc.health.v1.Health"} <= listed


async def test_long_error_detail_reaches_a_default_client(start: Spawn) -> None:
    process = await start()
    response = await process.client.call("exits")
    assert json.loads(response.error_message)["type"] == "SystemExit"
    assert await process.client.values("count") == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_worker_exits_0_at_once_on_a_signal(start: Spawn, number: int) -> None:
    process = await start()
    watcher = health_pb2_grpc.HealthStub(process.client.channel).Watch(health_pb2.HealthCheckRequest())
    await watcher.read()
    begin = time.monotonic()
    assert await process.end(number) == 0
    assert time.monotonic() - begin < 1.5


async def test_drain_lets_a_stream_end_and_refuses_new_calls(start: Spawn, journal: Path) -> None:
    process = await start("--drain-timeout-s", "10", "--concurrency", "1")
    call = process.client.stream("count", n=20, pause_s=0.05)
    first = await call.read()
    watcher = health_pb2_grpc.HealthStub(process.client.channel).Watch(health_pb2.HealthCheckRequest())
    await watcher.read()
    process.process.send_signal(signal.SIGTERM)
    assert (await watcher.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    refusal = process.client.stream("count")
    await until_end(refusal)
    assert await refusal.code() is grpc.StatusCode.UNAVAILABLE
    rest = await until_end(call)
    assert await call.code() is grpc.StatusCode.OK
    assert [json.loads(chunk.data) for chunk in [first, *rest] if chunk.data] == list(range(20))
    assert await asyncio.wait_for(process.process.wait(), 5) == 0


@pytest.mark.parametrize("name", ["count", "count_async"])
async def test_drain_cancels_what_outlasts_it_and_its_cleanup_runs(start: Spawn, journal: Path, name: str) -> None:
    process = await start("--drain-timeout-s", "0.3")
    call = process.client.stream(name, n=100_000, pause_s=0.02)
    await call.read()
    assert await process.end() == 0
    await until_end(call)
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert noted(journal) == ["finally", "cleanup"]


async def test_tool_that_will_not_stop_does_not_keep_the_worker(start: Spawn) -> None:
    process = await start("--drain-timeout-s", "0.2")
    call = process.client.stream("deaf")
    await call.read()
    begin = time.monotonic()
    assert await process.end() == 0
    assert time.monotonic() - begin < 5
    await until_end(call)


async def test_second_signal_ends_at_once(start: Spawn) -> None:
    process = await start("--drain-timeout-s", "60")
    call = process.client.stream("deaf")
    await call.read()
    watcher = health_pb2_grpc.HealthStub(process.client.channel).Watch(health_pb2.HealthCheckRequest())
    await watcher.read()
    process.process.send_signal(signal.SIGTERM)
    await watcher.read()
    assert await process.end() == 0
    await until_end(call)


async def test_worker_ends_when_its_lifeline_does(start: Spawn, journal: Path) -> None:
    read, write = os.pipe()
    process = await start("--lifeline-fd", str(read), pass_fds=(read,))
    os.close(read)
    call = process.client.stream("count", n=100_000, pause_s=0.01)
    await call.read()
    os.close(write)
    assert await asyncio.wait_for(process.process.wait(), 10) == 1
    assert noted(journal) == ["finally", "cleanup"]
    await until_end(call)


async def test_lifeline_takes_the_workers_own_group_along(start: Spawn, journal: Path) -> None:
    read, write = os.pipe()
    process = await start("--lifeline-fd", str(read), pass_fds=(read,), env={"SNAKEPIT_PROCESS_GROUP": "1"})
    os.close(read)
    call = process.client.stream("with_child")
    child = int((await call.read()).data)
    os.close(write)
    assert await asyncio.wait_for(process.process.wait(), 10) == -signal.SIGKILL
    assert noted(journal) == ["cleanup"]
    await eventually(lambda: not alive(child))
    await until_end(call)


async def test_lifeline_works_while_a_tool_blocks_the_loop(start: Spawn) -> None:
    read, write = os.pipe()
    process = await start("--lifeline-fd", str(read), pass_fds=(read,))
    os.close(read)
    call = process.client.stream("blocks_the_loop")
    await call.read()
    # Blocked: a ping gets no answer.
    await eventually_blocked(process)
    os.close(write)
    assert await asyncio.wait_for(process.process.wait(), 10) == 1
    await until_end(call)


async def eventually_blocked(process: Process) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await process.client.bridge.Ping(bridge.PingRequest(), timeout=0.3)
            except grpc.aio.AioRpcError:
                return


async def test_process_group_of_its_own_on_request(start: Spawn) -> None:
    process = await start(env={"SNAKEPIT_PROCESS_GROUP": "on"})
    identity = await process.client.result("identity")
    assert identity["pid"] == identity["group"] == identity["session"] == process.process.pid


async def test_ready_file_is_written_whole(start: Spawn, tmp_path: Path) -> None:
    process = await start()
    assert process.ready.strip() == process.ready
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


async def test_missing_adapter_option_exits_2() -> None:
    code, said = await refused()
    assert code == 2
    assert "usage:" in said


@pytest.mark.parametrize("arguments", [[], ["--health-check"]])
async def test_adapter_that_cannot_be_loaded_exits_1_and_says_why(tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('no weights')\n")
    code, said = await refused("--adapter", str(path), *arguments)
    assert code == 1
    assert f"adapter '{path}' failed to load" in said
    assert "no weights" in said


async def test_health_check_of_a_good_adapter_exits_0_without_serving(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code, _ = await refused("--adapter", f"{ADAPTER}:Adapter", "--health-check", env={"SNAKEPIT_READY_FILE": str(ready)})
    assert code == 0
    assert not ready.exists()


async def test_several_adapters_in_a_file_are_listed() -> None:
    code, said = await refused("--adapter", ADAPTER)
    assert code == 1
    assert "several adapter classes: Adapter, Unsafe" in said


async def test_port_in_use_exits_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = await refused("--adapter", f"{ADAPTER}:Adapter", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "can't listen on 127.0.0.1:" in said


async def test_concurrency_without_thread_safety_exits_1_and_says_what_to_do() -> None:
    code, said = await refused("--adapter", f"{ADAPTER}:Unsafe", "--concurrency", "2")
    assert code == 1
    assert "--concurrency 2 needs `__thread_safe__ = True`" in said


async def test_terminated_while_starting_exits_0(tmp_path: Path) -> None:
    # The host never answers, so the worker is still starting.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        marker = tmp_path / "loaded"
        path = tmp_path / "slow.py"
        path.write_text(
            f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
            "from snakepit_bridge.base_adapter import BaseAdapter, tool\n"
            "class A(BaseAdapter):\n    @tool()\n    def a(self): ...\n"
        )
        process = await run_worker("--adapter", str(path), "--elixir-address", f"127.0.0.1:{silent.getsockname()[1]}")
        await eventually(marker.exists)
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0
