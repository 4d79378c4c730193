"""The gateway's own life: it drains on SIGTERM, takes its workers with it when killed, and says what it can't do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import websockets

from tests.e2e.harness import JOURNAL_ADAPTER, ROOT, Served, events_of, read_sse, until, wait_for


async def test_sigterm_lets_a_stream_end_and_takes_no_new_ones(serve: Callable[..., Served], tag: str) -> None:
    gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "2")
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?tag={tag}") as response:
        events = events_of(response)
        assert [(await anext(events)).event, (await anext(events)).event] == ["start", "message"]
        gateway.process.send_signal(signal.SIGTERM)
        await until(lambda: gateway.client.get("/readyz").json()["status"] == "draining", "the drain")
        refused = await client.get("/v1/tools/numbered/stream?tag=x&count=1")
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/shutting-down")
        gateway.open_gate(tag, 2, 3)
        rest = [event async for event in events]
    assert [event.event for event in rest] == ["message", "message", "end"]
    assert rest[-1].json()["status"] == "ok"
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    gateway.check_remains()


async def test_sigterm_ends_an_endless_stream_as_shutdown(serve: Callable[..., Served], tag: str) -> None:
    gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "1", "--concurrency", "4", settings="[server]\ndrain_timeout_s = 0.3\n")
    async with (
        gateway.http() as client,
        client.stream("GET", f"/v1/tools/endless/stream?tag={tag}") as response,
        websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/tools/endless/ws?tag={tag}") as plain,
    ):
        await until(lambda: gateway.journal(tag).count("start") == 2, "both streams")
        gateway.process.send_signal(signal.SIGTERM)
        story = await read_sse(response)
        events = [json.loads(message) async for message in plain]
    assert story.end is not None
    assert (story.end["status"], story.end["error"]["type"]) == ("shutdown", "/problems/shutting-down")
    assert (events[-1]["event"], events[-1]["data"]["status"]) == ("end", "shutdown")
    assert await asyncio.to_thread(gateway.process.wait, 20) == 0
    assert gateway.journal(tag).count("finally") == 2
    gateway.check_remains()


async def test_second_signal_stops_at_once(serve: Callable[..., Served], tag: str) -> None:
    gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "1", settings="[server]\ndrain_timeout_s = 3000\n")
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/endless_async/stream?tag={tag}"):
        gateway.process.send_signal(signal.SIGTERM)
        await until(lambda: gateway.client.get("/readyz").json()["status"] == "draining", "the drain")
        gateway.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.process.wait, 20) == 128 + signal.SIGTERM
    wait_for(lambda: not gateway.processes(), "its workers to be gone")


# A gateway one of whose parts fails once the test says so, and which is then looked at from outside.
FAILING = """
import asyncio, pathlib, sys
from gateway import app, serve
from gateway.settings import Settings

class Failing(app.Gateway):
    def __init__(self, settings):
        super().__init__(settings)
        self.attendants.append(self.fail)

    async def fail(self):
        while not pathlib.Path("fail").exists():
            await asyncio.sleep(0.01)
        raise RuntimeError("a part that fails")

serve.Gateway = Failing
settings = Settings(server={"port": 0, "grpc_address": ""}, pools=[{"adapter": sys.argv[1], "size": 1}])
sys.exit(serve.run_server(settings, lambda: settings))
"""


def test_a_gateway_of_which_a_part_fails_says_so_and_ends(tmp_path: Path) -> None:
    """Who restarts gateways looks at processes and /livez: one without pools must not go on answering."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", FAILING, str(JOURNAL_ADAPTER)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "E2E_DIRECTORY": str(tmp_path)}
    with log.open("wb") as output, subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output) as process:
        try:
            wait_for(lambda: "worker ready" in log.read_text(), "its worker")
            (tmp_path / "fail").touch()
            assert process.wait(20) == 1
        finally:
            process.kill()
    said = log.read_text()
    assert "RuntimeError: a part that fails" in said
    assert "a part of the gateway has failed: stopping" in said


async def test_killed_gateway_leaves_no_worker(serve: Callable[..., Served], tag: str) -> None:
    """Nobody can tell the workers, busy or idle: they have to notice."""
    gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "3")
    async with (
        gateway.http() as client,
        client.stream("GET", f"/v1/tools/endless/stream?tag={tag}"),
        client.stream("GET", f"/v1/tools/silent/stream?tag={tag}&_timeout_ms=60000"),
    ):
        await until(lambda: gateway.journal(tag).count("start") == 2, "both streams")
        assert len(gateway.workers()) == 3
        gateway.process.kill()
        gateway.process.wait()
        await until(lambda: not gateway.processes(), "its workers to be gone")


def test_port_in_use_exits_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve_command("--port", str(taken.getsockname()[1]), "--grpc-address", "")
    assert done.returncode == 1
    assert "can't listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_grpc_port_in_use_exits_without_orphans(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve_command("--port", "0", "--grpc-address", f"127.0.0.1:{taken.getsockname()[1]}", directory=tmp_path)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "can't be bound" in done.stderr
    left = Served(tmp_path, (), "", {})
    wait_for(lambda: not left.processes(), "its workers to be gone")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("[server]\nprot = 1\n", "did you mean port"),
        ("[server]\nport = 'x'\n", "server.port"),
        ("[[pools]]\nname = 'a'\n", "neither an adapter nor addresses"),
        ("[server\n", "gateway.toml"),
    ],
)
def test_settings_that_cannot_be_used_exit_2(tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "gateway.toml").write_text(settings)
    done = serve_command("--config", str(tmp_path / "gateway.toml"))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_environment_goes_before_the_file_and_the_command_line_before_both(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('[log]\nlevel = "error"\n[server]\nport = 1\nretry_ms = 7\n')
    code = (
        "from pathlib import Path; from gateway.settings import load;"
        "s = load(Path('gateway.toml'), {'server': {'port': 3}}); print(s.log.level, s.server.port, s.server.retry_ms)"
    )
    environment = os.environ | {"GATEWAY_LOG__LEVEL": "debug", "GATEWAY_SERVER__PORT": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["debug", "3", "7"]


def serve_command(*arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `gateway serve` to its end, which is expected soon."""
    environment = os.environ | ({"E2E_DIRECTORY": str(directory)} if directory else {})
    command = [sys.executable, "-m", "gateway", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, env=environment, check=False)


def test_it_listens_when_it_has_a_worker(serve: Callable[..., Served]) -> None:
    gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "1", settings="[server]\nstart_wait_s = 20\n", ready=False)
    assert gateway.client.get("/readyz").status_code == 200


def test_it_listens_without_a_worker_when_it_has_waited(serve: Callable[..., Served], tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time\n\ntime.sleep(3600)\n")
    gateway = serve(str(slow), settings="[server]\nstart_wait_s = 0.1\n", ready=False)
    assert gateway.client.get("/livez").status_code == 200
    assert gateway.client.get("/readyz").status_code == 503
