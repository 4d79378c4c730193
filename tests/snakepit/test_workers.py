"""The processes: how Snakepit's workers start, are watched, die and are stopped, and how they find their host."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from tests.e2e.harness import ROOT, Served, events_of, read_sse, until, wait_for
from tests.snakepit.conftest import ADAPTERS, FAKE_WORKER, pool, stall, told

FAST_HEARTBEAT = {"SNAKEPIT_HEARTBEAT_CONFIG": '{"interval_ms":100,"timeout_ms":100}'}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def worker(directory: Path, host: str, *, adapter: str = "Tools", port: int = 0) -> Iterator[int]:
    """A fake worker that somebody else started; its port."""
    ready = directory / "worker.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, str(FAKE_WORKER), "--adapter", f"{ADAPTERS}.{adapter}", "--elixir-address", host, "--port", str(port)]
    environment = {**os.environ, "SNAKEPIT_READY_FILE": str(ready), "PYTHONPATH": str(ROOT), "FAKE_JOURNAL": str(directory / "fake")}
    environment["SNAKEPIT_OTEL_CONSOLE"] = "false"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(ready.exists, "the worker's ready file")
        yield int(ready.read_text())
    finally:
        process.kill()
        process.wait()


def lines(directory: Path) -> list[str]:
    return (directory / "fake").read_text().splitlines()


def pid_of(gateway: Served) -> int:
    answer = gateway.client.post("/v1/tools/pid/call", json={})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["result"]["pid"])


def state_of(gateway: Served) -> dict[str, Any]:
    (found,) = gateway.pools()["snakepit"]["workers"]
    return dict(found)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestStart:
    def test_command_line_and_environment_are_snakepits(self, gateway: Served) -> None:
        answer = gateway.client.post("/v1/tools/pid/call", json={}).json()["result"]
        pid = int(answer["pid"])
        words = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        environment = dict(entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0"))
        assert words[:2] == [sys.executable, str(FAKE_WORKER)]
        assert words[2:7] == ["--adapter", f"{ADAPTERS}.Tools", "--port", "0", "--elixir-address"]
        assert words[words.index("--snakepit-instance-name") + 1] == "snakepit-1"
        assert words[words.index("--snakepit-run-id") + 1] == words[words.index("--snakepit-instance-token") + 1]
        # Everybody on the machine can read it.
        assert answer["session"].rpartition("_")[2] not in " ".join(words)
        assert environment["SNAKEPIT_PROCESS_GROUP"] == "1"
        assert environment["SNAKEPIT_OTEL_CONSOLE"] == "false"
        assert json.loads(environment["SNAKEPIT_HEARTBEAT_CONFIG"])["dependent"] is True
        assert not [name for name in environment if name.startswith("GATEWAY_")]
        assert os.getpgid(pid) == pid

    @pytest.mark.parametrize(
        ("adapter", "reason"),
        [
            ("Unregistered", "worker snakepit-1 can't be used: its adapter registers no tools (it has no register_with_session, or "),
            ("Unregistered", "another host): list their names in the pool's `tools`"),
            ("Broken", "its adapter failed: RuntimeError: the weights are missing"),
            ("Misnamed", "the registration of its tools was refused ({:invalid_tool_name, "),
            ("Missing", "exited with code 1 before it was ready"),
        ],
    )
    def test_adapter_that_can_not_be_used_is_a_reason_that_says_what_to_do(
        self, serve: Callable[..., Served], adapter: str, reason: str
    ) -> None:
        gateway = serve(pool(adapter=adapter), ready=False)
        wait_for(lambda: reason in gateway.client.get("/readyz").text, f"the reason {reason!r}")
        assert gateway.client.get("/readyz").status_code == 503
        # One attempt a back-off, not one each 50 ms.
        assert len([line for line in gateway.log_lines() if line.get("event") == "worker down"]) < 10

    async def test_adapter_with_decorated_methods_alone_answers_as_snakepits_does(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(adapter="Silent"))
        answer = gateway.client.get("/v1/tools/count/stream")
        assert (answer.status_code, answer.json()["detail"]) == (501, "Adapter does not support tool execution")

    def test_missing_program_is_a_reason_not_a_crash(self, serve: Callable[..., Served]) -> None:
        settings = pool().replace(sys.executable, "/nowhere/python")
        gateway = serve(settings, ready=False)
        wait_for(lambda: "there is no program '/nowhere/python'" in gateway.client.get("/readyz").text, "the reason")

    async def test_listed_names_serve_where_nothing_is_registered(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(adapter="Unregistered", tools=["numbers"]))
        async with gateway.http() as client, client.stream("GET", "/v1/tools/numbers/stream?n=2") as response:
            assert (await read_sse(response)).chunks == [{"i": 0}, {"i": 1}]
        # Nothing is known of it: Snakepit's answer for the wrong kind of call.
        wrong = gateway.client.post("/v1/tools/numbers/call", json={}).json()["result"]
        assert wrong == {"error": "Streaming tool called on non-streaming endpoint."}

    def test_printed_spans_are_drained_where_the_pool_wants_them(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(env={"SNAKEPIT_OTEL_CONSOLE": "true"}))
        # More than a pipe holds.
        for _ in range(150):
            assert gateway.client.post("/v1/tools/add/call", json={"a": 1}).status_code == 200
        assert "BridgeService/ExecuteTool" in gateway.log.read_text()


class TestDeath:
    async def test_killed_worker_ends_its_stream_and_is_started_again(self, serve: Callable[..., Served], tmp_path: Path) -> None:
        gateway = serve(pool())
        pid = pid_of(gateway)
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/held/stream?gate={tmp_path}/gate") as response:
            events = events_of(response)
            async for event in events:
                if event.event == "message":
                    os.kill(pid, signal.SIGKILL)
                if event.event == "end":
                    assert event.json()["error"]["type"] == "/problems/worker-lost"
        await until(lambda: state_of(gateway)["state"] == "ready" and state_of(gateway)["restarts"] == 1, "a new worker")
        assert pid_of(gateway) != pid

    async def test_exit_within_a_tool_is_a_lost_worker(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool())
        async with gateway.http() as client, client.stream("GET", "/v1/tools/die/stream") as response:
            story = await read_sse(response)
        assert story.end is not None
        assert (story.chunks, story.end["error"]["type"]) == (["last words"], "/problems/worker-lost")
        await until(lambda: state_of(gateway)["restarts"] == 1 and state_of(gateway)["state"] == "ready", "a new worker")

    async def test_worker_that_is_told_to_end_gives_its_streams_two_seconds(self, serve: Callable[..., Served], tmp_path: Path) -> None:
        gateway = serve(pool())
        pid = pid_of(gateway)
        (tmp_path / "gate.chatty").touch()
        end: dict[str, Any] = {}
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?gate={tmp_path}/gate") as response:
            began = None
            async for event in events_of(response):
                if event.event == "message" and began is None:
                    os.kill(pid, signal.SIGTERM)
                    began = time.monotonic()
                if event.event == "end":
                    end = event.json()
            assert began is not None
            assert 1.5 < time.monotonic() - began < 10
        assert end["error"]["type"] == "/problems/worker-lost"
        assert "Cancelling all calls" in end["error"]["detail"]
        await until(lambda: state_of(gateway)["state"] == "ready" and state_of(gateway)["restarts"] == 1, "a new worker")

    async def test_worker_whose_heartbeats_failed_ends_itself_and_is_started_again(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(env=FAST_HEARTBEAT))
        pid = pid_of(gateway)
        os.kill(gateway.pid, signal.SIGSTOP)
        try:
            await until(lambda: not alive(pid), "the worker to end itself")
        finally:
            os.kill(gateway.pid, signal.SIGCONT)
        assert "host lost" in told(gateway)
        await until(lambda: state_of(gateway)["restarts"] == 1 and state_of(gateway)["state"] == "ready", "a new worker")
        assert pid_of(gateway) != pid

    @pytest.mark.parametrize("command", [(), ("--max-workers", "2")], ids=["heartbeat", "threaded"])
    async def test_killed_gateway_leaves_no_worker(self, serve: Callable[..., Served], command: tuple[str, ...], tmp_path: Path) -> None:
        gateway = serve(pool("snakepit", "Tools", *command))
        pid = pid_of(gateway)
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/held/stream?gate={tmp_path}/gate") as response:
            async for event in events_of(response):
                if event.event == "message":
                    break
            gateway.process.kill()
            gateway.process.wait()
        await until(lambda: not alive(pid), "the worker to be gone")


class TestThreaded:
    async def test_places_are_its_max_workers_and_its_health_is_known_while_all_are_taken(
        self, serve: Callable[..., Served], tmp_path: Path
    ) -> None:
        gateway = serve(pool("snakepit", "Tools", "--max-workers", "3", health_interval_s=0.05))
        assert state_of(gateway)["concurrency"] == 3
        async with gateway.http() as client:
            runs = [(await client.post("/v1/tools/held/runs", json={"gate": str(tmp_path / "gate")})).headers["location"] for _ in range(4)]
            states = lambda: sorted(gateway.client.get(run).json()["state"] for run in runs)  # noqa: E731
            await until(lambda: state_of(gateway)["in_flight"] == 3, "three to run")
            before = told(gateway).count("ping")
            await until(lambda: told(gateway).count("ping") > before + 2, "health checks to be answered")
            assert states() == ["queued", "running", "running", "running"]
            assert (state_of(gateway)["state"], state_of(gateway)["restarts"]) == ("ready", 0)
            (tmp_path / "gate").touch()
            await until(lambda: states() == ["ok"] * 4, "all to end")

    def test_it_registers_for_every_call_and_has_no_heartbeat(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool("snakepit", "Tools", "--max-workers=2"))
        assert [gateway.client.post("/v1/tools/add/call", json={"a": n}).json()["result"] for n in range(3)] == [2.0, 3.0, 4.0]
        assert not [line for line in told(gateway) if line.startswith("heartbeat")]


class TestAddresses:
    def test_workers_that_others_start_call_us_as_their_host(self, serve: Callable[..., Served], tmp_path: Path) -> None:
        host, port = f"127.0.0.1:{free_port()}", free_port()
        settings = f'[host]\naddress = "{host}"\n[[pools]]\nname = "snakepit"\nkind = "snakepit"\naddresses = ["127.0.0.1:{port}"]\n'
        settings += "health_interval_s = 0.1\n"
        gateway = serve(settings, ready=False)
        with worker(tmp_path, host, port=port):
            wait_for(gateway.is_ready, "the worker")
            first = pid_of(gateway)
        wait_for(lambda: state_of(gateway)["state"] != "ready", "its end to be seen")
        with worker(tmp_path, host, port=port):
            wait_for(gateway.is_ready, "the new worker")
            assert pid_of(gateway) != first
            gateway.stop()
            assert any(line.partition(" ")[2].startswith("cleanup-session gateway_snakepit-1_") for line in lines(tmp_path))

    async def test_lost_threads_of_a_worker_elsewhere_are_told_and_it_goes_on(self, serve: Callable[..., Served], tmp_path: Path) -> None:
        host, port = f"127.0.0.1:{free_port()}", free_port()
        settings = f'[host]\naddress = "{host}"\n[[pools]]\nname = "snakepit"\nkind = "snakepit"\naddresses = ["127.0.0.1:{port}"]\n'
        gateway = serve(settings + "stall_limit_bytes = 3_000_000\n", ready=False)
        with worker(tmp_path, host, port=port):
            wait_for(gateway.is_ready, "the worker")
            # A tool that never pauses: whether its worker's queue is full when the call is cut can't be known from here.
            await stall(gateway)
            told_of = "a call that was broken off may have cost a worker a thread"
            await until(lambda: told_of in gateway.log.read_text(), "the warning")
            assert (state_of(gateway)["state"], state_of(gateway)["restarts"]) == ("ready", 0)
            gateway.stop()


class TestHostTools:
    def test_none_is_said_as_snakepit_says_it(self, gateway: Served) -> None:
        result = gateway.client.post("/v1/tools/ask_host/call", json={"name": "lookup"}).json()["result"]
        assert result == {"known": [], "answer": "Tool lookup is not an Elixir tool"}

    def test_python_functions_answer_in_both_encodings(self, serve: Callable[..., Served], tmp_path: Path) -> None:
        (tmp_path / "functions.py").write_text("def lookup(key: str) -> dict:\n    return {'found': key}\n")
        gateway = serve(f'host_tools = ["{tmp_path}/functions.py:lookup"]\n' + pool())
        for packed in (False, True):
            result = gateway.client.post("/v1/tools/ask_host/call", json={"name": "lookup", "packed": packed}).json()["result"]
            assert result == {"known": ["lookup"], "answer": {"found": "v"}}


class TestReload:
    def test_sighup_renews_the_workers(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool())
        old = pid_of(gateway)
        gateway.process.send_signal(signal.SIGHUP)
        wait_for(lambda: not alive(old), "the old worker to go")
        assert pid_of(gateway) != old

    def test_pool_of_such_workers_can_come_with_a_reload(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool())
        settings = gateway.directory / "gateway.toml"
        settings.write_text(pool() + pool("second", size=1))
        gateway.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "second" in gateway.pools(), "the new pool")
        assert gateway.client.post("/v1/tools/add/call?_pool=second", json={"a": 1}).json()["result"] == 3.0


class TestOperator:
    def test_pool_shows_in_pools_metrics_and_readiness(self, gateway: Served) -> None:
        gateway.client.post("/v1/tools/add/call", json={"a": 1})
        shown = gateway.pools()["snakepit"]
        assert (shown["kind"], shown["workers"][0]["state"]) == ("snakepit", "ready")
        assert shown["workers"][0]["address"].startswith("127.0.0.1:")
        assert 'gateway_runs_started_total{pool="snakepit",tool="add"}' in gateway.client.get("/metrics").text
        assert gateway.client.get("/readyz").status_code == 200

    async def test_nobody_else_registers_tools_in_a_workers_name(self, gateway: Served) -> None:
        (listens,) = [line for line in gateway.log_lines() if line.get("event") == "host for Snakepit workers listens"]
        before = gateway.client.get("/v1/tools").json()
        async with grpc.aio.insecure_channel(listens["address"]) as channel:
            host = pb_grpc.BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
            for session_id in ("", "snakepit-1", "gateway_snakepit-1", "gateway_snakepit-1_" + "0" * 32):
                tools = [pb.ToolRegistration(name="evil")]
                answer = await host.RegisterTools(pb.RegisterToolsRequest(session_id=session_id, tools=tools))
                assert (answer.success, answer.error_message) == (False, "not_found")
        assert gateway.client.get("/v1/tools").json() == before
