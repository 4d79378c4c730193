"""Host tools as a local worker's code and a gRPC client call them, through a whole gateway; and their reload."""

from __future__ import annotations

import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from gateway.auth.keys import line_of, new_secret
from gateway.codec.values import pack_value
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from tests.e2e.harness import Served, served, wait_for
from tests.snakepit.conftest import pool as snakepit_pool

ADAPTER = Path(__file__).with_name("adapter.py")
TOOLS = """
from gateway import host_tool

@host_tool
def double(number: int) -> int:
    return number * {factor}

@host_tool
async def describe(text: str = "nothing") -> dict:
    return {{"text": text, "length": len(text)}}

@host_tool
def breaks() -> None:
    raise LookupError("no such thing")

@host_tool
def slow() -> None:
    import time
    time.sleep(3)

@host_tool
def look(key: str) -> dict:
    return {{"key": key}}

@host_tool
def raw() -> bytes:
    return b"\\x80"
"""
SCOPES = {"all": ["tools:*"], "doubles": ["tools:double", "tools:ask"], "other": ["pools:default"]}


LOCAL = f'[[pools]]\nadapter = "{ADAPTER}"\nsize = 2\nconcurrency = 4\n'


def start(directory: Path, environment: dict[str, str] | None = None, pools: str = LOCAL) -> Any:
    (directory / "their_tools.py").write_text(TOOLS.format(factor=2))
    settings = f'host_tools = ["{directory}/their_tools.py"]\n\n{pools}'
    return served(directory, settings=settings, environment=environment or {})


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with start(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def ask(gateway: Served, name: str, **arguments: Any) -> Any:
    return gateway.client.post("/v1/tools/ask/call", json={"name": name, "arguments": arguments}).json()


def test_a_local_workers_code_reaches_them(gateway: Served) -> None:
    assert ask(gateway, "double", number=21)["result"] == 42
    assert ask(gateway, "describe", text="é")["result"] == {"text": "é", "length": 1}
    assert ask(gateway, "describe")["result"]["text"] == "nothing"
    assert ask(gateway, "raw")["result"] == {"$bytes": "gA=="}
    assert gateway.client.post("/v1/tools/listed/call", json={}).json()["result"] == ["breaks", "describe", "double", "look", "raw", "slow"]


def test_a_stream_calls_one_for_each_chunk(gateway: Served) -> None:
    answer = gateway.client.post("/v1/tools/ask_often/stream", json={"count": 5}, headers={"accept": "application/json"})
    assert answer.json()["chunks"] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("breaks", {}, "the host's tool breaks failed: LookupError: no such thing"),
        ("nobody", {}, "the host's tool nobody failed: Tool nobody is not an Elixir tool"),
        ("double", {"number": "many"}, "double does not take these arguments: /number"),
    ],
)
def test_a_failure_is_the_tools_error(gateway: Served, name: str, arguments: dict[str, Any], words: str) -> None:
    problem = ask(gateway, name, **arguments)
    assert (problem["error_type"], words in problem["detail"]) == ("RuntimeError", True), problem


@pytest.mark.parametrize("packed", [True, False])
def test_a_snakepit_workers_code_reaches_them_in_both_encodings(tmp_path: Path, packed: bool) -> None:
    with start(tmp_path, pools=snakepit_pool()) as gateway:
        answer = gateway.client.post("/v1/tools/ask_host/call", json={"name": "look", "packed": packed}).json()["result"]
        assert answer == {"known": ["double", "describe", "breaks", "slow", "look", "raw"], "answer": {"key": "v"}}
        answer = gateway.client.post("/v1/tools/ask_host/call", json={"name": "double"}).json()["result"]
        assert answer["answer"].startswith("double does not take these arguments: /number: Field required; /key: Extra inputs")


def test_their_time_and_number_are_settings(tmp_path: Path) -> None:
    with start(tmp_path, pools=f"[host]\ntool_timeout_s = 0.2\ntools_at_once = 1\n\n{LOCAL}") as gateway:
        assert "TimeoutError: slow did not return in 0.2 s" in ask(gateway, "slow")["detail"]
        # Its thread goes on, and has the one place.
        assert "TimeoutError: double did not return in 0.2 s" in ask(gateway, "double", number=1)["detail"]


def test_their_socket_is_for_the_gateways_user_alone(gateway: Served) -> None:
    worker = next(pid for pid in gateway.workers())
    command = Path(f"/proc/{worker}/cmdline").read_text().split("\0")
    socket = Path(command[command.index("--host-tools-address") + 1].removeprefix("unix:"))
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


async def test_a_grpc_client_reaches_them_in_its_session(gateway: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        stub: Any = pb_grpc.BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
        listed = await stub.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id="s"))
        assert [spec.name for spec in listed.tools] == ["double", "describe", "breaks", "slow", "look", "raw"]
        wanted = pb.ExecuteElixirToolRequest(session_id="s", tool_name="double", parameters={"number": pack_value(4)})
        answer = await stub.ExecuteElixirTool(wanted)
        assert (answer.success, answer.error_message) == (False, "not_found")
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"))
        answer = await stub.ExecuteElixirTool(wanted)
        assert (answer.success, orjson.loads(answer.result.value)) == (True, 8)


async def test_a_caller_reaches_those_that_its_scopes_name(tmp_path: Path) -> None:
    keys = {name: new_secret() for name in SCOPES}
    lines = "; ".join(line_of(name, keys[name], scopes) for name, scopes in SCOPES.items())
    with start(tmp_path, environment={"GATEWAY_KEY": keys["all"], "GATEWAY_AUTH__KEYS": lines}) as gateway:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            stub: Any = pb_grpc.BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
            seen = {}
            for name, key in keys.items():
                headers = (("authorization", f"Bearer {key}"),)
                await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"), metadata=headers)
                listed = await stub.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id="s"), metadata=headers)
                answers = []
                for tool, parameters in (("double", {"number": pack_value(4)}), ("describe", {})):
                    wanted = pb.ExecuteElixirToolRequest(session_id="s", tool_name=tool, parameters=parameters)
                    answers.append((await stub.ExecuteElixirTool(wanted, metadata=headers)).error_message)
                seen[name] = ([spec.name for spec in listed.tools], answers)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ExecuteElixirTool(wanted)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert seen == {
        "all": (["double", "describe", "breaks", "slow", "look", "raw"], ["", ""]),
        "doubles": (["double"], ["", "This needs the scope tools:describe"]),
        "other": ([], ["This needs the scope pools:host"] * 2),
    }


def has_line(gateway: Served, event: str, count: int = 1) -> Callable[[], bool]:
    return lambda: sum(line.get("event", "").startswith(event) for line in gateway.log_lines()) == count


def test_a_reload_reads_them_again_or_changes_nothing(tmp_path: Path) -> None:
    with start(tmp_path) as gateway:
        (tmp_path / "their_tools.py").write_text(TOOLS.format(factor=3))
        gateway.process.send_signal(signal.SIGHUP)
        wait_for(has_line(gateway, "reloaded"), "the reload")
        assert ask(gateway, "double", number=1)["result"] == 3
        (tmp_path / "their_tools.py").write_text("def (")
        gateway.process.send_signal(signal.SIGHUP)
        wait_for(has_line(gateway, "not reloaded"), "the refusal")
        assert ask(gateway, "double", number=1)["result"] == 3
        assert "can't be imported: SyntaxError" in gateway.log.read_text()


def test_settings_that_name_none_that_can_be_used_do_not_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"host_tools: 'nowhere\.py': there is no file nowhere\.py"):
        served(tmp_path, settings='host_tools = ["nowhere.py"]\n').__enter__()
