"""The gateway as Snakepit's BridgeServer: what a gRPC client written for that one sees, each row of it a test.

Real workers are behind it, ours (pools `journal`) and a scripted one (pool `scripted`) for what ours never do. Where we depart on
purpose the test says so; ARCHITECTURE.md lists it.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.wrappers_pb2 import StringValue

from gateway.codec.values import JSON_TYPE_URL
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from tests.conformance.scripted_worker import ENDLESS, GARBAGE, PYTHON_ERROR, TOOLS, ScriptedWorker
from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import JOURNAL_ADAPTER, Served, served, until

SETTINGS = """
[[pools]]
name = "journal"
adapter = "{adapter}"
size = 2
concurrency = 8

[[pools]]
name = "scripted"
addresses = ["{address}"]
tools = {tools}
concurrency = 8
"""
NOT_JSON = PackedAny(type_url=JSON_TYPE_URL, value=b"{not json")
# What is set on a real Snakepit worker's call.
SNAKEPIT_ID = re.compile(r"sp-[0-9a-f]{24}")


@pytest.fixture(scope="module")
def worker() -> Iterator[ScriptedWorker]:
    worker = ScriptedWorker()
    yield worker
    worker.stop()


@pytest.fixture(scope="module", params=BUILDS)
def gateway(request: pytest.FixtureRequest, worker: ScriptedWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = SETTINGS.format(adapter=JOURNAL_ADAPTER, address=worker.address, tools=orjson.dumps(TOOLS).decode())
    with served(tmp_path_factory.mktemp("gateway"), settings=settings, packages=packages_of(request.param)) as gateway:
        yield gateway


class Client:
    """A client of the BridgeServer, with a session of its own."""

    def __init__(self, stub: Any, session: str) -> None:
        self.stub = stub
        self.session = session

    async def begin(self) -> None:
        assert (await self.stub.InitializeSession(pb.InitializeSessionRequest(session_id=self.session))).success

    def request(self, tool: str, arguments: dict[str, Any] | None = None, **members: Any) -> pb.ExecuteToolRequest:
        packed = {
            name: value if isinstance(value, PackedAny) else PackedAny(type_url=JSON_TYPE_URL, value=orjson.dumps(value))
            for name, value in (arguments or {}).items()
        }
        return pb.ExecuteToolRequest(session_id=self.session, tool_name=tool, parameters=packed, stream=True, **members)

    async def stream(self, tool: str, arguments: dict[str, Any] | None = None, **members: Any) -> list[pb.ToolChunk]:
        return [chunk async for chunk in self.stub.ExecuteStreamingTool(self.request(tool, arguments, **members), timeout=20)]

    async def failure(self, tool: str, arguments: dict[str, Any] | None = None) -> tuple[grpc.StatusCode, str, list[pb.ToolChunk]]:
        chunks: list[pb.ToolChunk] = []
        call = self.stub.ExecuteStreamingTool(self.request(tool, arguments), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(call, chunks)
        return caught.value.code(), caught.value.details() or "", chunks

    async def register(self, *names: str, worker_id: str, streams: bool = True, **metadata: str) -> pb.RegisterToolsResponse:
        tools = [pb.ToolRegistration(name=name, supports_streaming=streams, metadata=metadata) for name in names]
        request = pb.RegisterToolsRequest(session_id=self.session, tools=tools, worker_id=worker_id)
        return await self.stub.RegisterTools(request)  # type: ignore[no-any-return]


async def read_all(call: Any, chunks: list[pb.ToolChunk]) -> None:
    while (chunk := await call.read()) is not grpc.aio.EOF:
        chunks.append(chunk)


@pytest.fixture
async def client(gateway: Served, tag: str) -> AsyncIterator[Client]:
    options = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}", options) as channel:
        client = Client(pb_grpc.BridgeServiceStub(channel), re.sub(r"[^A-Za-z0-9._:~@-]", "-", tag))  # type: ignore[no-untyped-call]
        await client.begin()
        yield client


# §5: sessions


async def test_ping_answers_pong_and_whole_seconds(client: Client) -> None:
    answer = await client.stub.Ping(pb.PingRequest(message="connection_test"))
    assert (answer.message, answer.server_time.nanos) == ("pong: connection_test", 0)
    assert abs(answer.server_time.seconds - time.time()) < 60


async def test_initialize_session_is_idempotent_and_names_no_tools(client: Client) -> None:
    config = pb.SessionConfig(enable_caching=True, cache_ttl_seconds=60)
    for _ in range(2):
        answer = await client.stub.InitializeSession(pb.InitializeSessionRequest(session_id=client.session, config=config))
        assert (answer.success, answer.error_message, dict(answer.available_tools)) == (True, "", {})


async def test_initialize_session_with_an_empty_id_is_internal_invalid_id(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.InitializeSession(pb.InitializeSessionRequest())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "invalid_id")


async def test_initialize_session_takes_no_id_that_other_front_doors_refuse(client: Client) -> None:
    # A departure: Snakepit takes any text.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.InitializeSession(pb.InitializeSessionRequest(session_id="a b"))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "invalid_id")


async def test_cleanup_session_is_always_a_success_and_force_is_ignored(client: Client) -> None:
    for force in (False, True):
        answer = await client.stub.CleanupSession(pb.CleanupSessionRequest(session_id=client.session, force=force))
        assert (answer.success, answer.resources_cleaned) == (True, 1)


async def test_cleanup_session_forgets_its_tools_as_well(client: Client) -> None:
    # A departure: there, the tools of a session stay registered when it has ended.
    await client.register("plain", worker_id="scripted-1")
    await client.stub.CleanupSession(pb.CleanupSessionRequest(session_id=client.session))
    await client.begin()
    assert (await client.register("plain", worker_id="scripted-1")).success


async def test_get_session_of_an_unknown_one_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.GetSession(pb.GetSessionRequest(session_id="nobody"))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "Session not found: nobody")


async def test_get_session_says_when_it_began_and_how_many_tools_it_has(client: Client) -> None:
    # Departures: there, created_at is a clock of the machine's own, and tool_count is always 0.
    await client.register("plain", "raw", worker_id="scripted-1")
    answer = await client.stub.GetSession(pb.GetSessionRequest(session_id=client.session))
    assert (answer.session_id, answer.tool_count) == (client.session, 2)
    assert abs(answer.created_at.seconds - time.time()) < 60


async def test_heartbeat_says_whether_the_session_is_valid(client: Client) -> None:
    answers = [await client.stub.Heartbeat(pb.HeartbeatRequest(session_id=name)) for name in (client.session, "nobody")]
    assert [answer.session_valid for answer in answers] == [True, False]


async def test_session_ends_after_its_time_to_live_and_a_heartbeat_begins_it_anew(tmp_path: Any, worker: ScriptedWorker) -> None:
    settings = f'[sessions]\nttl_s = 0.6\n\n[[pools]]\naddresses = ["{worker.address}"]\ntools = ["plain"]\n'
    with served(tmp_path, settings=settings) as gateway:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            client = Client(pb_grpc.BridgeServiceStub(channel), "s")  # type: ignore[no-untyped-call]
            await client.begin()
            began = time.monotonic()
            while time.monotonic() - began < 1.2:
                asked = time.monotonic()
                valid = (await client.stub.Heartbeat(pb.HeartbeatRequest(session_id="s"))).session_valid
                # Unless the machine was busy with other things for so long.
                assert valid or time.monotonic() - asked > 0.5

            async def is_gone() -> bool:
                try:
                    await client.stub.GetSession(pb.GetSessionRequest(session_id="s"))  # which doesn't begin it anew
                except grpc.aio.AioRpcError as exc:
                    return exc.code() is grpc.StatusCode.NOT_FOUND
                return False

            while not await is_gone():
                assert time.monotonic() - began < 20
            assert (await client.failure("plain"))[:2] == (grpc.StatusCode.NOT_FOUND, "Session not found: s")


# §5: RegisterTools


async def test_register_tools_of_an_unknown_session_is_not_found(client: Client) -> None:
    client.session = "nobody"
    answer = await client.register("plain", worker_id="scripted-1")
    assert (answer.success, answer.error_message) == (False, "not_found")


async def test_register_tools_answers_an_id_for_each(client: Client) -> None:
    answer = await client.register("plain", "raw", worker_id="scripted-1")
    assert (answer.success, dict(answer.tool_ids)) == (True, {name: f"{client.session}:{name}" for name in ("plain", "raw")})


async def test_register_tools_is_all_or_nothing_and_names_the_duplicate(client: Client) -> None:
    await client.register("plain", worker_id="scripted-1")
    answer = await client.register("raw", "plain", worker_id="scripted-1")
    assert (answer.success, answer.error_message) == (False, '{:duplicate_tool, "plain"}')
    assert (await client.stub.GetSession(pb.GetSessionRequest(session_id=client.session))).tool_count == 1


@pytest.mark.parametrize(
    ("name", "good"), [("a" * 64, True), ("a.b_c-1", True), ("a" * 65, False), ("_a", False), ("a b", False), ("", False)]
)
async def test_register_tools_takes_names_by_snakepits_rule(client: Client, name: str, good: bool) -> None:
    assert (await client.register(name, worker_id="scripted-1")).success is good


@pytest.mark.parametrize(
    ("metadata", "good"), [({"k": "x" * 4095}, True), ({"k": "x" * 4096}, False), ({f"k{n}": "" for n in range(33)}, False)]
)
async def test_register_tools_takes_metadata_by_snakepits_bounds(client: Client, metadata: dict[str, str], good: bool) -> None:
    assert (await client.register("plain", worker_id="scripted-1", **metadata)).success is good


# §5.1: ExecuteStreamingTool, the checks in order


async def test_session_unknown(client: Client) -> None:
    client.session = "nowhere"
    assert (await client.failure("nobody", {"x": NOT_JSON}))[:2] == (grpc.StatusCode.NOT_FOUND, "Session not found: nowhere")


async def test_tool_unknown_in_that_session(client: Client) -> None:
    answer = await client.failure("nobody", {"x": NOT_JSON})
    assert answer[:2] == (grpc.StatusCode.NOT_FOUND, f"Tool nobody not found for session {client.session}")


@pytest.mark.parametrize("registered", [True, False])
async def test_remote_tool_without_supports_streaming(client: Client, registered: bool) -> None:
    tool = "plain" if registered else "whoami"
    if registered:
        await client.register("plain", worker_id="nobody", streams=False)
    code, message, _ = await client.failure(tool, {"x": NOT_JSON})
    assert (code, message) == (
        grpc.StatusCode.UNIMPLEMENTED,
        f"Streaming execution is not enabled for tool {tool}. Enable streaming support on the adapter "
        "(supports_streaming: true) or use ExecuteTool instead.",
    )


@pytest.mark.parametrize(("said", "streams"), [("true", True), ("1", True), ("false", False), ("yes", False)])
async def test_supports_streaming_is_read_from_the_metadata_too(client: Client, said: str, streams: bool) -> None:
    await client.register("plain", worker_id="scripted-1", streams=False, supports_streaming=said)
    if streams:
        assert len(await client.stream("plain")) == 3
    else:
        assert (await client.failure("plain"))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_parameter_not_json(client: Client) -> None:
    await client.register("plain", worker_id="nobody")  # which is looked for later
    code, message, _ = await client.failure("plain", {"x": NOT_JSON})
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert re.fullmatch(r'Invalid parameter x: ".+"', message)
    code, message, _ = await client.failure("plain", {"x": PackedAny(type_url="type.googleapis.com/snakepit.map", value=b"{")})
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Invalid parameter x (type.googleapis.com/snakepit.map): ")


async def test_a_packed_string_is_taken_as_the_text_that_it_is(client: Client, worker: ScriptedWorker) -> None:
    # A departure: there it is an invalid parameter.
    packed = PackedAny()
    packed.Pack(StringValue(value="text"))
    await client.stream("plain", {"x": packed})
    assert worker.requests[-1][0].parameters["x"].value == b'"text"'


async def test_worker_id_not_in_the_pool_registry(client: Client) -> None:
    await client.register("plain", worker_id="python-140234")
    assert (await client.failure("plain"))[:2] == (grpc.StatusCode.INTERNAL, "Worker not found: python-140234")


async def test_worker_not_responding_is_unavailable(tmp_path: Any) -> None:
    # A departure: there it is INTERNAL, "Worker not responding"; here the call waits for a worker first.
    settings = '[[pools]]\naddresses = ["127.0.0.1:1"]\ntools = ["plain"]\nqueue_timeout_s = 0.2\n'
    with served(tmp_path, settings=settings, ready=False) as gateway:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            client = Client(pb_grpc.BridgeServiceStub(channel), "s")  # type: ignore[no-untyped-call]
            await client.begin()
            assert (await client.failure("plain"))[0] is grpc.StatusCode.UNAVAILABLE


async def test_worker_stream_error_has_the_workers_own_words_behind_its_chunks(client: Client) -> None:
    code, message, chunks = await client.failure("fails")
    assert (code, message) == (grpc.StatusCode.INTERNAL, PYTHON_ERROR)
    assert [(chunk.chunk_id, chunk.data) for chunk in chunks] == [("fails-1", b"1")]


async def test_worker_stream_error_keeps_its_status_code(client: Client) -> None:
    # A departure: there every code becomes INTERNAL.
    assert (await client.failure("denies"))[:2] == (grpc.StatusCode.PERMISSION_DENIED, "not for you")


async def test_worker_that_stops_is_unavailable(client: Client) -> None:
    # A departure: there it is INTERNAL.
    code, message, _ = await client.failure("stops")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "Cancelling all calls" in message


async def test_unexpected_stream_item_is_internal(client: Client) -> None:
    code, message, _ = await client.failure(GARBAGE)
    assert code is grpc.StatusCode.INTERNAL
    assert "can't be decoded" in message


# §5.1: what is passed on


async def test_parameters_are_json_again_and_binary_ones_are_copied(client: Client, worker: ScriptedWorker) -> None:
    await client.stream("plain", {"x": {"a": [1, None]}}, binary_parameters={"blob": b"\x80"})
    request, _ = worker.requests[-1]
    assert (request.parameters["x"].type_url, orjson.loads(request.parameters["x"].value)) == (JSON_TYPE_URL, {"a": [1, None]})
    assert (dict(request.binary_parameters), request.stream) == ({"blob": b"\x80"}, True)


async def test_metadata_is_passed_on_but_not_what_would_unpickle(client: Client, worker: ScriptedWorker) -> None:
    # A departure: there, all but the correlation id is dropped; here what is dangerous is, and what was for the gateway.
    await client.stream("plain", metadata={"k": "v", "binary_format:blob": "pickle", "timeout_ms": "5000", "correlation_id": "c-1"})
    assert dict(worker.requests[-1][0].metadata) == {"k": "v", "correlation_id": "c-1"}


async def test_timeout_ms_of_the_metadata_ends_the_call(client: Client, worker: ScriptedWorker) -> None:
    worker.cancelled.clear()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stream(ENDLESS, metadata={"timeout_ms": "300"})
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(worker.cancelled.is_set, "the worker's call to be cancelled")


@pytest.mark.parametrize(
    ("metadata", "headers", "told"),
    [
        ({"correlation_id": "mine"}, {"x-snakepit-correlation-id": "header"}, "mine"),
        ({}, {"x-snakepit-correlation-id": "header"}, "header"),
        ({"correlation_id": ""}, {"x-snakepit-correlation-id": "header"}, None),
        ({}, {}, None),
    ],
)
async def test_correlation_id(
    client: Client, worker: ScriptedWorker, metadata: dict[str, str], headers: dict[str, str], told: str | None
) -> None:
    call = client.stub.ExecuteStreamingTool(client.request("plain", metadata=metadata), metadata=tuple(headers.items()))
    async for _ in call:
        pass
    request, seen = worker.requests[-1]
    assert request.metadata["correlation_id"] == seen["x-snakepit-correlation-id"]
    assert seen["x-snakepit-correlation-id"] == told if told else SNAKEPIT_ID.fullmatch(seen["x-snakepit-correlation-id"])
    # It is not returned to the caller.
    answered = [*(await call.initial_metadata()), *(await call.trailing_metadata())]
    assert not [name for name, _ in answered if "correlation" in name]


# §5.1: chunks


def decoration(chunk: pb.ToolChunk) -> dict[str, str]:
    """Return a final's metadata, having looked at the part of it that is a time."""
    metadata = dict(chunk.metadata)
    assert metadata.pop("execution_time_ms").isdigit()
    return metadata


async def test_chunks_pass_unchanged_and_the_final_is_decorated(client: Client) -> None:
    chunks = await client.stream("plain")
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [
        ("plain-1", b'{"n": 1}', False),
        ("plain-2", b'{"n": 2}', False),
        ("plain-3", b"", True),
    ]
    assert [dict(chunk.metadata) for chunk in chunks[:2]] == [{}, {}]
    assert decoration(chunks[2]) == {"tool_type": "remote", "worker_id": "scripted-1"}


async def test_chunks_of_our_own_worker_and_its_final_with_data(client: Client) -> None:
    chunks = await client.stream("marked", {"count": 2})
    assert [(chunk.chunk_id, orjson.loads(chunk.data), chunk.is_final) for chunk in chunks] == [
        ("marked-1", {"n": 1}, False),
        ("marked-2", {"n": 2}, True),
    ]
    metadata = decoration(chunks[1])
    assert metadata.pop("worker_id").startswith("journal-")
    assert metadata == {"note": "chunk 2", "tool_type": "remote"}


async def test_every_final_is_decorated_where_it_stands(client: Client) -> None:
    chunks = await client.stream("several_finals")
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [
        ("several_finals-1", b"1", True),
        ("several_finals-2", b"2", False),
        ("several_finals-3", b"", True),
        ("several_finals-4", b"4", True),
        ("several_finals-5", b"", True),
        ("odd", b"", True),
    ]
    ours = {"tool_type": "remote", "worker_id": "scripted-1"}
    assert [decoration(chunk) for chunk in chunks if chunk.is_final] == [
        {**ours, "mine": "1", "worker_id": "my own"},
        {**ours, "mine": "3"},
        ours,
        ours,
        {**ours, "last": "yes"},
    ]
    assert not chunks[1].metadata


async def test_chunks_after_a_final_flow_on_and_none_is_made_up(client: Client) -> None:
    chunks = await client.stream("after_final")
    assert [(chunk.chunk_id, chunk.data, chunk.is_final) for chunk in chunks] == [
        ("after_final-1", b"", True),
        ("after_final-2", b"2", False),
        ("after_final-3", b"3", False),
    ]


@pytest.mark.parametrize(("tool", "sent"), [("no_final", 2), ("nothing", 0)])
async def test_stream_that_ends_without_a_final_gets_one(client: Client, tool: str, sent: int) -> None:
    *chunks, final = await client.stream(tool)
    assert len(chunks) == sent
    assert (re.fullmatch(r"sp-final-\d+", final.chunk_id) is not None, final.data, final.is_final) == (True, b"", True)
    assert decoration(final) == {"synthetic_final": "true", "tool_type": "remote", "chunks_sent": str(sent)}


async def test_odd_chunk_ids_are_kept(client: Client) -> None:
    chunks = await client.stream("odd_ids")
    # A departure: a chunk without an id has one.
    assert [chunk.chunk_id for chunk in chunks] == ["a", "odd_ids-2", "odd_ids-3", "z"]
    assert dict(chunks[2].metadata) == {"k": "v"}


async def test_data_that_is_no_json_passes_as_the_bytes_that_it_is(client: Client) -> None:
    assert [chunk.data for chunk in await client.stream("raw")] == [b"text, no JSON", b"\xff\x00", b"NaN", b""]


# §5.1: where it runs


async def test_registered_tool_is_pinned_to_its_worker(client: Client, gateway: Served) -> None:
    await client.register("marked", worker_id="journal-2")
    workers = [(await client.stream("marked"))[-1].metadata["worker_id"] for _ in range(6)]
    assert workers == ["journal-2"] * 6


async def test_tool_of_the_catalogue_needs_no_registration(client: Client) -> None:
    # A departure: there it is not found.
    assert await client.stream("marked")


async def test_registered_tool_has_to_be_in_the_catalogue_of_its_worker(client: Client) -> None:
    # A departure: there a worker is asked for whatever was registered.
    await client.register("marked", worker_id="scripted-1")
    assert (await client.failure("marked"))[:2] == (grpc.StatusCode.NOT_FOUND, f"Tool marked not found for session {client.session}")


# §5.1: the client's deadline, and its leaving


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_client_that_is_gone_stops_the_worker(client: Client, gateway: Served, tag: str, how: str) -> None:
    call = client.stub.ExecuteStreamingTool(client.request("endless_async", {"tag": tag}), timeout=1 if how == "deadline" else 20)
    assert orjson.loads((await call.read()).data) == {"n": 1}
    if how == "cancel":
        call.cancel()
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(call, [])
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: gateway.journal(tag) == ["start", "finally", "cleanup"], "the tool to stop")
    await until(gateway.is_idle, "its place to be free")


# §5: ExecuteTool


async def test_execute_tool_answers_json_and_snakepits_metadata(client: Client) -> None:
    answer = await client.stub.ExecuteTool(client.request("whoami"))
    assert (answer.success, answer.error_message, answer.result.type_url) == (True, "", JSON_TYPE_URL)
    assert orjson.loads(answer.result.value)["session"] == client.session
    assert (answer.metadata["tool_type"], answer.metadata["execution_time"].isdigit()) == ("remote", True)


async def test_execute_tool_of_an_unknown_session_is_not_found(client: Client) -> None:
    client.session = "nowhere"
    answer = await client.stub.ExecuteTool(client.request("whoami"))
    assert (answer.success, answer.error_message) == (False, "not_found")


async def test_execute_tool_of_an_unknown_tool(client: Client) -> None:
    answer = await client.stub.ExecuteTool(client.request("nobody"))
    assert (answer.success, answer.error_message) == (False, f"Tool nobody not found for session {client.session}")


async def test_execute_tool_whose_parameter_is_not_json(client: Client) -> None:
    answer = await client.stub.ExecuteTool(client.request("whoami", {"x": NOT_JSON}))
    assert (answer.success, answer.error_message.startswith("Invalid parameter x: ")) == (False, True)


async def test_execute_tool_that_fails_on_its_worker(client: Client) -> None:
    answer = await client.stub.ExecuteTool(client.request("fails"))
    assert (answer.success, answer.error_message) == (False, f"Remote tool execution failed: {PYTHON_ERROR}")


async def test_execute_tool_registered_for_a_worker_that_is_not_ours(client: Client) -> None:
    await client.register("whoami", worker_id="python-1")
    answer = await client.stub.ExecuteTool(client.request("whoami"))
    assert (answer.success, answer.error_message) == (False, "Worker not found: python-1")


async def test_execute_tool_that_was_registered_runs_on_its_worker_only(client: Client, gateway: Served) -> None:
    await client.register("whoami", worker_id="journal-1")
    pids = set()
    for _ in range(6):
        answer = await client.stub.ExecuteTool(client.request("whoami"))
        pids.add(orjson.loads(answer.result.value)["pid"])
    assert len(pids) == 1
