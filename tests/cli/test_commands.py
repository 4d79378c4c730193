"""The client commands against a real server, and every command's exit codes."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from gateway import __version__
from gateway.auth.keys import KeyRing, read_keys
from gateway.cli import app, liveruns
from gateway.configured import demo_adapter
from gateway.settings import Settings
from gateway.workers.description import Tool
from tests.conftest import FakeCall, Running, Serve, within
from tests.endpoints.people import ADA, auth

ROOT = Path(__file__).resolve().parents[2]


async def cli(*arguments: str, key: str | None = None) -> Result:
    """Run a command beside the event loop of the test; `key`: the environment's."""
    environment = {"COLUMNS": "20", "GATEWAY_KEY": key}
    return await within(asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=environment))  # type: ignore[no-any-return]


def count_to_three(call: FakeCall) -> None:
    call.send({"n": 1}, "zwei")
    call.send(None)
    call.end()


async def test_stream_prints_a_json_value_a_line_and_exits_0(running: Running) -> None:
    running.pool.script = count_to_three
    result = await cli("stream", "count", "count=3", "--url", running.url, "--session", "s", "--timeout", "1.5")
    assert (result.exit_code, result.stdout) == (0, '{"n":1}\n"zwei"\nnull\n')
    assert "3 chunks" in result.stderr
    call = running.pool.calls[0].call
    assert (call.arguments, call.session_id, call.timeout_s) == ({"count": 3}, "s", 1.5)


async def test_stream_json_prints_every_event(running: Running) -> None:
    running.pool.script = count_to_three
    result = await cli("stream", "count", "--json", "--url", running.url)
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [next(iter(event)) for event in events] == ["start", "seq", "seq", "seq", "end"]


async def test_stream_that_fails_after_chunks_prints_them_and_exits_1(running: Running) -> None:
    running.pool.script = lambda call: (call.send(1), call.fail())  # type: ignore[assignment, func-returns-value]
    result = await cli("stream", "count", "--url", running.url)
    assert (result.exit_code, result.stdout) == (1, "1\n")
    assert "boom" in result.stderr


async def test_stream_that_is_cut_goes_on(serve: Serve) -> None:
    async with serve(retry_ms=10) as running:

        def cut(call: FakeCall) -> None:
            call.send(1)
            asyncio.get_running_loop().call_later(0.1, cut_and_go_on, call)

        def cut_and_go_on(call: FakeCall) -> None:
            for protocol in list(running.http.server_state.connections):
                protocol.transport.abort()
            call.send(2)
            call.end()

        running.pool.script = cut
        result = await cli("stream", "count", "--url", running.url)
    assert (result.exit_code, result.stdout) == (0, "1\n2\n")


async def test_raw_is_text_as_it_is(running: Running) -> None:
    running.pool.script = lambda call: (call.send("a b", "\nc", {"$bytes": "AP8="}, 5), call.end())  # type: ignore[assignment, func-returns-value]
    result = await cli("stream", "count", "--raw", "--url", running.url)
    assert result.stdout_bytes == b"a b\nc\x00\xff5\n"


async def test_digits_are_as_the_gateway_sent_them(running: Running) -> None:
    running.pool.script = lambda call: (call.send_raw(b"1.0", b"123456789012345678901234567890", b"[1,\n2]"), call.end())  # type: ignore[assignment, func-returns-value]
    result = await cli("stream", "count", "--url", running.url)
    assert result.stdout == "1.0\n123456789012345678901234567890\n[1, 2]\n"
    as_json = await cli("stream", "count", "--json", "--url", running.url)
    assert '{"seq":2,"data":123456789012345678901234567890}\n' in as_json.stdout


async def test_attach_reads_a_run_from_any_place(running: Running) -> None:
    running.pool.script = count_to_three
    run = (await running.client.post("/v1/tools/count/runs")).json()["run"]
    whole = await cli("attach", run, "--url", running.url)
    assert (whole.exit_code, whole.stdout) == (0, '{"n":1}\n"zwei"\nnull\n')
    rest = await cli("attach", f"{run}.2", "--url", running.url, "--observe")
    by_number = await cli("attach", run, "--from", "2", "--url", running.url)
    assert rest.stdout == by_number.stdout == "null\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["stream", "nobody"], 1, "404"),
        (["stream", "count", "count=x"], 1, '/count: "x" is not of type "integer"'),
        (["stream", "a/b?c"], 1, "404"),
        (["stream", "count", "count"], 2, "key=value"),
        (["stream", "count", "=5"], 2, "key=value"),
        (["stream"], 2, "Missing argument"),
        (["stream", "count", "--json", "--raw"], 2, "one of --json, --raw and --lines"),
        (["stream", "count", "--overflow", "drop"], 2, "latest"),
        (["stream", "count", "--on-disconnect", "never"], 1, "allowed: cancel, continue"),
        (["attach", "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"], 1, "404"),
        (["attach", "r_1", "--from", "yesterday"], 2, "--from is 'yesterday'; allowed: start, live"),
        (["call", "count"], 1, "501"),
        (["cancel", "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"], 1, "404"),
        (["runs", "--state", "asleep"], 1, "allowed: queued, running, ok"),
        (["runs", "--limit", "0"], 2, "--limit"),
        (["dance"], 2, "No such command"),
    ],
)
async def test_exit_code_says_what_went_wrong(running: Running, arguments: list[str], exit_code: int, said: str) -> None:
    url = ["--url", running.url] if arguments[0] != "dance" else []
    result = await cli(*arguments, *url)
    assert (result.exit_code, said in result.stderr) == (exit_code, True), result.stderr


@pytest.mark.parametrize("arguments", [["tools"], ["runs"], ["stream", "count"], ["call", "add"], ["cancel", "r_x"], ["attach", "r_x"]])
async def test_nobody_there_exits_3(arguments: list[str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        result = await cli(*arguments, "--url", f"http://127.0.0.1:{sock.getsockname()[1]}")
    assert result.exit_code == 3
    assert "no gateway answers" in result.stderr


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://x:port"])
async def test_a_url_that_is_none_exits_2(url: str) -> None:
    result = await cli("tools", "--url", url)
    assert (result.exit_code, "no URL" in result.stderr) == (2, True)


async def test_call_prints_the_result(running: Running) -> None:
    running.pool.script = lambda call: (call.send({"sum": 3}), call.end())  # type: ignore[assignment, func-returns-value]
    result = await cli("call", "add", "a=1", "b=2.0", "--url", running.url)
    assert (result.exit_code, result.stdout) == (0, '{"sum": 3}\n')
    assert running.pool.calls[0].call.arguments == {"a": 1, "b": 2.0}


async def test_tools_are_a_table_or_json(running: Running) -> None:
    table = await cli("tools", "--url", running.url)
    assert re.search(r"count +yes +default +count", table.stdout)
    listed = await cli("tools", "--json", "--url", running.url)
    assert [tool["name"] for tool in json.loads(listed.stdout)["tools"]] == ["add", "count", "opaque", "typed"]


@pytest.mark.parametrize("description", ["Take a [list] of :key: [0]", "It ends so: [/b]"])
async def test_what_tools_say_of_themselves_is_shown_as_it_is(running: Running, description: str) -> None:
    running.pool.tools["count"] = Tool("count", "default", description, True)
    assert description in (await cli("tools", "--url", running.url)).stdout


async def test_runs_are_a_table_or_json_lines(running: Running) -> None:
    running.pool.script = count_to_three
    for _ in range(3):
        await running.client.post("/v1/tools/count/stream")
    running.pool.script = None
    live = (await running.client.post("/v1/tools/count/runs")).json()["run"]
    table = await cli("runs", "--url", running.url)
    assert len(table.stdout.splitlines()) == 5
    assert re.search(rf"{live} +count +running +0 +w-1 +20", table.stdout)
    listed = await cli("runs", "--json", "--state", "ok", "--tool", "count", "--limit", "2", "--url", running.url)
    assert [json.loads(line)["state"] for line in listed.stdout.splitlines()] == ["ok", "ok"]


async def test_runs_goes_through_the_pages(running: Running) -> None:
    running.pool.script = count_to_three
    for _ in range(130):
        await running.client.post("/v1/tools/count/runs")
    listed = await cli("runs", "--json", "--limit", "120", "--url", running.url)
    assert len({json.loads(line)["run"] for line in listed.stdout.splitlines()}) == 120


async def test_cancel_prints_the_state(running: Running) -> None:
    async with running.client.stream("GET", "/v1/tools/count/stream") as stream:
        call = await running.pool.next_call()
        call.send(1)
        run = stream.headers["content-location"].split("/")[3]
        result = await cli("cancel", run, "--url", running.url)
        assert (result.exit_code, result.stdout) == (0, "cancelled\n")
        assert call.cancelled.is_set()


async def test_version_is_printed() -> None:
    assert (await cli("version")).stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--config", "/nonexistent.toml"], "there is no such file"),
        (["serve", "--port", "99999"], "server.port: "),
        (["serve", "--log-level", "loud"], "log.level: "),
        (["serve", "a:X", "b:X"], "two pools are named X"),
        (["serve", "--pool-size", "0"], "size: "),
        (["openapi", "nowhere_to_be_found:X"], "there is no module"),
    ],
)
async def test_settings_that_cannot_be_exit_2(arguments: list[str], said: str) -> None:
    result = await cli(*arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize(("arguments", "size", "concurrency"), [(["--pool-size", "1"], 1, 1), (["--concurrency", "3"], 4, 3)])
def test_serve_sizes_the_demo_tools_where_nothing_else_is_served(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], size: int, concurrency: int
) -> None:
    told: list[Settings] = []

    def run_server(settings: Settings, *_: object, **__: object) -> int:
        told.append(settings)
        return 0

    monkeypatch.setattr("gateway.serve.run_server", run_server)
    assert CliRunner().invoke(app, ["serve", *arguments]).exit_code == 0
    ((pool,),) = (settings.pools for settings in told)
    assert (pool.adapter, pool.size, pool.concurrency) == (str(demo_adapter()), size, concurrency)


@pytest.mark.parametrize("front_door", ["http", "grpc"])
async def test_serve_on_an_address_that_is_taken_exits_1(front_door: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = sock.getsockname()[1]
        port, grpc_address = (taken, "") if front_door == "http" else (0, f"127.0.0.1:{taken}")
        command = [sys.executable, "-m", "gateway", "serve", "--port", str(port), "--grpc-address", grpc_address, "--pool-size", "1"]
        served = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert served.returncode == 1
    assert "can't listen" in served.stderr


async def test_live_runs_are_a_table_with_their_readers(running: Running) -> None:
    async with running.client.stream("GET", "/v1/tools/count/stream"):
        call = await running.pool.next_call()
        call.send(1)
        as_table = await cli("runs", "--live", "--tool", "count", "--url", running.url)
        as_json = await cli("runs", "--live", "--json", "--url", running.url)
        none = await cli("runs", "--live", "--state", "queued", "--url", running.url)
        call.end()
    assert (as_table.exit_code, as_json.exit_code, none.exit_code) == (0, 0, 0)
    assert "1 open" in as_table.stdout
    assert [word in as_table.stdout for word in (call.run_id, "count", "running", "anonymous", "w-1", "sse")] == [True] * 6
    assert [json.loads(line)["run"] for line in as_json.stdout.splitlines()] == [call.run_id]
    assert "0 open" in none.stdout


def test_live_runs_follow_on_a_terminal_until_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def ask() -> dict[str, object]:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        run = {
            "run": f"r_{looks}",
            "tool": "count",
            "state": "queued",
            "caller": "alice",
            "worker": None,
            "pool": "default",
            "age_ms": 1500,
            "chunks": 0,
            "bytes": 0,
            "silent_ms": None,
            "paused": False,
            "queue": {"position": 2, "depth": 5},
            "readers": [{"format": "sse", "role": "observer", "lag_bytes": 7}],
            "reader_count": 3,
        }
        return {"total": 9, "runs": [run]}

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    monkeypatch.setattr(liveruns, "INTERVAL_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        liveruns.show(ask, console, as_json=False)
    said = screen.getvalue()
    for word in ("r_1", "r_2", "9 open, the newest 1", "queued 2/5", "alice", "default", "1.5 s", "sse (observes), 2 more", "7"):
        assert word in said, word


async def test_client_commands_send_their_key(serve: Serve) -> None:
    async with serve(auth=auth()) as running:
        running.pool.script = count_to_three
        refused = await cli("tools", "--url", running.url)
        assert (refused.exit_code, "401" in refused.stderr) == (1, True)
        for command in (["tools"], ["stream", "count"], ["runs"]):
            result = await cli(*command, "--url", running.url, "--key", ADA.key)
            assert result.exit_code == 0, result.stderr
            assert ADA.key not in result.output
        assert "count" in (await cli("runs", "--url", running.url, key=ADA.key)).stdout
        wrong = await cli("call", "add", "--url", running.url, "--key", "gw_wr\nong")
        assert (wrong.exit_code, "gw_wr" in wrong.stderr) == (2, False)


async def test_a_new_key_is_shown_with_the_line_that_stores_it() -> None:
    result = await cli("keys", "new", "ci", "--scope", "tools:a", "--scope", "metrics")
    shown, stored = (line.split(": ", 1)[1].strip() for line in result.stdout.splitlines())
    (key,) = read_keys(stored)
    caller = KeyRing([key]).find(shown)
    assert caller is not None
    assert (caller.id, caller.grants.tools, caller.grants.metrics) == ("key:ci", ("a",), True)
    for arguments in (["a b", "--scope", "admin"], ["a", "--scope", "sudo"], ["a"]):
        assert (await cli("keys", "new", *arguments)).exit_code == 2


def test_serve_on_a_public_address_without_authentication_exits_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--host", "0.0.0.0", "--port", "0"]
    served = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert served.returncode == 2
    assert "--insecure" in served.stderr
