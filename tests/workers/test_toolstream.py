from __future__ import annotations

import base64

import orjson
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import StringValue

from gateway.call import ToolCall
from gateway.errors import Code, ToolFailed
from gateway.events import ChunkAttributes
from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest, ExecuteToolResponse, ToolChunk
from gateway.rpc.worker_pb2 import ToolChunks
from gateway.workers.toolstream import MARKS_LIMIT, ToolEnd, ToolStream
from gateway.workers.worker import Worker
from tests.workers.conftest import FakeChannel, Sink, ready_worker

DETAIL = orjson.dumps({"type": "ValueError", "message": "boom", "traceback": "Traceback …", "context": {"tool_name": "t"}}).decode()


class Execution:
    """A ToolStream on a fake worker."""

    def __init__(self, *, trusts_json: bool = True, batches: bool = True, described: bool = True, call: ToolCall | None = None) -> None:
        self.channel = FakeChannel()
        self.worker = ready_worker("p-1", channel=self.channel, batches=batches, described=described, trusts_json=trusts_json)
        self.sink = Sink()
        self.given_back: list[str | None] = []
        call = call or ToolCall("t", {}, 30.0)
        self.stream = ToolStream(self.worker, call, "run-1", 30.0, self.sink, self._give_back).open([("traceparent", "00-x")])
        (self.call,) = self.channel.calls

    def _give_back(self, worker: Worker, run_id: str | None) -> None:
        assert self.sink.ends, "the end is told before the place is free"
        self.given_back.append(run_id)

    def batch(self, *chunks: ToolChunk) -> None:
        self.call.sink.on_messages([ToolChunks(chunks=chunks).SerializeToString()])


def chunk(data: bytes, n: int = 1, *, final: bool = False, chunk_id: str | None = None, **metadata: str) -> ToolChunk:
    return ToolChunk(chunk_id=f"t-{n}" if chunk_id is None else chunk_id, data=data, is_final=final, metadata=metadata)


def test_request_carries_arguments_as_json_and_drops_pickle_metadata() -> None:
    call = ToolCall(
        "t",
        {"n": 2**70, "text": "é", "none": None, "rows": [1.5, {"a": True}]},
        30.0,
        session_id="s1",
        metadata={"binary_format:blob": "pickle", "k": "v"},
        binary={"blob": b"\x80"},
    )
    request = ExecuteToolRequest.FromString(Execution(call=call).call.request)
    assert {name: value.value for name, value in request.parameters.items()} == {
        "n": str(2**70).encode(),
        "text": '"é"'.encode(),
        "none": b"null",
        "rows": b'[1.5,{"a":true}]',
    }
    assert {value.type_url for value in request.parameters.values()} == {"type.googleapis.com/google.protobuf.StringValue"}
    assert (request.session_id, request.tool_name, request.stream) == ("s1", "t", True)
    assert dict(request.metadata) == {"k": "v"}
    assert dict(request.binary_parameters) == {"blob": b"\x80"}


def test_request_without_session_to_own_worker_has_empty_session_id() -> None:
    assert ExecuteToolRequest.FromString(Execution().call.request).session_id == ""


def test_request_to_undescribed_worker_carries_one_session_id_for_good() -> None:
    call = ToolCall("t", {}, 30.0, session_id="caller's")
    request = ExecuteToolRequest.FromString(Execution(described=False, call=call).call.request)
    assert request.session_id == "gateway_p-1"


@pytest.mark.parametrize(
    ("batches", "streaming", "method"),
    [
        (True, True, "/gateway.rpc.WorkerService/StreamTool"),
        (False, True, "/snakepit.bridge.BridgeService/ExecuteStreamingTool"),
        (True, False, "/snakepit.bridge.BridgeService/ExecuteTool"),
    ],
)
def test_method_follows_the_worker_and_the_kind_of_call(batches: bool, streaming: bool, method: str) -> None:
    execution = Execution(batches=batches, call=ToolCall("t", {}, 30.0, streaming=streaming))
    assert execution.call.method == method
    assert execution.call.timeout_s == 30.0
    assert list(execution.call.metadata) == [("traceparent", "00-x"), ("x-gateway-run-id", "run-1")]


def test_plain_batches_are_delivered_as_they_came_without_attributes() -> None:
    execution = Execution()
    execution.call.sink.on_messages([ToolChunks(payloads=[b"1", b"2"]).SerializeToString()])
    execution.call.sink.on_messages([ToolChunks(payloads=[b"%d" % n]).SerializeToString() for n in (3, 4)])
    execution.batch(chunk(b"", 5, final=True, rows="4"))
    execution.call.end()
    assert execution.sink.batches == [[b"1", b"2"], [b"3", b"4"]]
    assert execution.sink.attributes == {}
    assert execution.sink.end == ToolEnd(None, {"rows": "4"}, has_final=True, marks=(ChunkAttributes(True, {"rows": "4"}),))
    assert execution.given_back == [None]


def test_payloads_come_before_the_chunks_of_their_message() -> None:
    execution = Execution()
    first = ToolChunks(payloads=[b"1"], chunks=[chunk(b"2", 2, k="v")])
    messages = [first, ToolChunks(payloads=[b"3"], chunks=[chunk(b"4", 4, final=True)])]
    execution.call.sink.on_messages([message.SerializeToString() for message in messages])
    execution.call.end()
    assert execution.sink.batches == [[b"1", b"2", b"3", b"4"]]
    assert execution.sink.attributes == {1: ChunkAttributes(metadata={"k": "v"}), 3: ChunkAttributes(is_final=True)}


def test_payloads_of_a_pool_that_checks_are_checked() -> None:
    execution = Execution(trusts_json=False)
    execution.call.sink.on_messages([ToolChunks(payloads=[b"1", b"text"]).SerializeToString()])
    assert execution.sink.batches == [[b"1", b'"text"']]


def test_single_chunk_messages_become_one_batch() -> None:
    execution = Execution(batches=False)
    execution.call.sink.on_messages([chunk(b"%d" % n, n).SerializeToString() for n in (1, 2, 3)])
    assert execution.sink.batches == [[b"1", b"2", b"3"]]


def test_final_with_data_is_a_chunk_and_marked() -> None:
    execution = Execution()
    execution.batch(chunk(b"1"), chunk(b"2", 2, final=True, last="yes"))
    execution.call.end()
    assert execution.sink.payloads == [b"1", b"2"]
    assert execution.sink.attributes == {1: ChunkAttributes(is_final=True, metadata={"last": "yes"})}
    assert execution.sink.end.metadata == {"last": "yes"}


def test_several_finals_and_chunks_after_them_keep_order_and_last_final_wins() -> None:
    execution = Execution()
    execution.batch(chunk(b"1", final=True, a="1"), chunk(b"2", 2, k="v"), chunk(b"", 3, final=True, b="2"), chunk(b"4", 4))
    execution.call.end()
    assert execution.sink.payloads == [b"1", b"2", b"4"]
    # What comes behind a final without data has a number less than its worker gave it: its id is kept.
    assert execution.sink.attributes == {
        0: ChunkAttributes(True, {"a": "1"}),
        1: ChunkAttributes(False, {"k": "v"}),
        2: ChunkAttributes(chunk_id="t-4", ahead=(ChunkAttributes(True, {"b": "2"}),)),
    }
    assert execution.sink.end.metadata == {"b": "2"}
    assert execution.sink.end.marks == ()


@pytest.mark.parametrize("batches", [True, False])
def test_final_without_data_stands_ahead_of_the_next_chunk_or_at_the_end(batches: bool) -> None:
    execution = Execution(batches=batches)
    final = chunk(b"", 2, final=True)
    final.chunk_id = "mine"
    for message in (chunk(b"1", 1), final, chunk(b"2", 2), final, final):
        if batches:
            plain = [] if message.is_final else [message.data]
            marked = [message] if message.is_final else []
            execution.call.sink.on_messages([ToolChunks(payloads=plain, chunks=marked).SerializeToString()])
        else:
            execution.call.sink.on_messages([message.SerializeToString()])
    execution.call.end()
    mark = ChunkAttributes(True, chunk_id="mine")
    assert execution.sink.payloads == [b"1", b"2"]
    assert execution.sink.attributes == {1: ChunkAttributes(ahead=(mark,))}
    assert execution.sink.end == ToolEnd(None, has_final=True, marks=(mark, mark))


def test_finals_without_data_are_bounded() -> None:
    execution = Execution()
    execution.batch(*[chunk(b"", final=True) for _ in range(1000)])
    execution.call.end()
    assert len(execution.sink.end.marks) == MARKS_LIMIT


def test_empty_chunk_that_is_not_final_is_null() -> None:
    execution = Execution()
    execution.batch(chunk(b"1"), chunk(b"", 2))
    assert execution.sink.payloads == [b"1", b"null"]


def test_lone_empty_final_delivers_no_chunk() -> None:
    execution = Execution()
    execution.batch(chunk(b"", final=True))
    execution.call.end()
    assert execution.sink.batches == []
    assert execution.sink.end.has_final


def test_unchecked_payloads_pass_unchanged_even_when_they_are_not_json() -> None:
    execution = Execution()
    execution.batch(chunk(b"not json"))
    assert execution.sink.payloads == [b"not json"]


@pytest.mark.parametrize(
    ("sent", "payload"),
    [
        (b'{"a": 1}', None),
        (b"12345678901234567890123", None),
        (b'"\\ud800"', None),
        (b"plain text", b'"plain text"'),
        ("line\u2028sep".encode(), b'"line\\u2028sep"'),
        (b"\x00\x01\xff", b'{"$bytes":"' + base64.b64encode(b"\x00\x01\xff") + b'"}'),
        (b"NaN", b"null"),
        (b'{"loss": NaN, "x": -Infinity, "n": 12345678901234567890123}', b'{"loss":null,"x":null,"n":12345678901234567890123}'),
        (b"1e400", b"null"),
        (b"", b"null"),
        (b"[" * 5000, b'"' + b"[" * 5000 + b'"'),
    ],
)
def test_checked_payload_becomes_json_and_keeps_what_was_sent(sent: bytes, payload: bytes | None) -> None:
    execution = Execution(trusts_json=False)
    execution.batch(chunk(sent))
    assert execution.sink.payloads == [sent if payload is None else payload]
    assert execution.sink.attributes == ({} if payload is None else {0: ChunkAttributes(raw=sent)})


def test_checked_chunk_ids_are_kept_only_where_they_differ_from_the_numbering() -> None:
    execution = Execution(trusts_json=False)
    execution.batch(chunk(b"1", 1), chunk(b"2", 2))
    execution.batch(chunk(b"3", 3), chunk(b"4", chunk_id="mine"), chunk(b"5", chunk_id=""))
    assert execution.sink.attributes == {3: ChunkAttributes(chunk_id="mine")}


def test_unary_answer_is_one_chunk_then_the_end() -> None:
    execution = Execution(call=ToolCall("t", {}, 30.0, streaming=False))
    answer = ExecuteToolResponse(success=True, result=Any(value=b'{"sum": 3}'), metadata={"k": "v"})
    execution.call.sink.on_messages([answer.SerializeToString()])
    execution.call.end()
    assert execution.sink.payloads == [b'{"sum": 3}']
    assert execution.sink.end == ToolEnd(None, {"k": "v"}, has_final=True)


def test_unary_packed_string_is_read_as_text() -> None:
    execution = Execution(call=ToolCall("t", {}, 30.0, streaming=False))
    result = Any()
    result.Pack(StringValue(value="hello"))
    execution.call.sink.on_messages([ExecuteToolResponse(success=True, result=result).SerializeToString()])
    assert execution.sink.payloads == [b'"hello"']


@pytest.mark.parametrize(("metadata", "code"), [({"error_code": "NOT_FOUND"}, Code.NOT_FOUND), ({}, Code.INVALID_ARGUMENT)])
def test_unary_failure_takes_its_code_from_the_metadata_else_from_the_type(metadata: dict[str, str], code: Code) -> None:
    execution = Execution(call=ToolCall("t", {}, 30.0, streaming=False))
    answer = ExecuteToolResponse(success=False, error_message=DETAIL, metadata=metadata)
    execution.call.sink.on_messages([answer.SerializeToString()])
    execution.call.end()
    error = execution.sink.end.error
    assert isinstance(error, ToolFailed)
    assert (error.code, error.detail, error.error_type, error.traceback, error.raw) == (code, "boom", "ValueError", "Traceback …", DETAIL)
    assert execution.sink.batches == []


def test_unary_end_without_an_answer_is_an_error() -> None:
    execution = Execution(call=ToolCall("t", {}, 30.0, streaming=False))
    execution.call.end()
    assert execution.sink.end.error is not None


def test_tool_exception_is_tool_failed_with_its_code_and_fields() -> None:
    execution = Execution()
    detail = {"type": "ArgumentError", "message": "bad", "errors": [{"field": "/n", "reason": "not an integer"}]}
    execution.call.end(Code.INVALID_ARGUMENT, orjson.dumps(detail).decode())
    error = execution.sink.end.error
    assert isinstance(error, ToolFailed)
    assert error.code is Code.INVALID_ARGUMENT
    assert [tuple(field) for field in error.errors] == [("/n", "not an integer")]
    assert execution.given_back == [None]


@pytest.mark.parametrize(
    ("code", "message", "lost", "problem"),
    [
        (Code.UNAVAILABLE, "Socket closed", True, "worker-lost"),
        (Code.UNAVAILABLE, "Cancelling all calls", False, "worker-lost"),
        (Code.CANCELLED, "", False, "worker-lost"),
        (Code.DEADLINE_EXCEEDED, "", False, "worker-timeout"),
        (Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max", False, "chunk-too-large"),
        (Code.UNIMPLEMENTED, "Adapter does not support tool execution", False, "tool-error"),
        (Code.DEADLINE_EXCEEDED, orjson.dumps({"type": "TimeoutError", "message": "slow"}).decode(), False, "tool-error"),
    ],
)
def test_status_without_a_tool_detail_speaks_of_the_worker(code: Code, message: str, lost: bool, problem: str) -> None:
    execution = Execution()
    execution.call.end(code, message, connection_lost=lost)
    assert execution.sink.end.error is not None
    assert execution.sink.end.error.problem == problem


def test_lost_connection_takes_the_worker_out_of_service_at_once() -> None:
    execution = Execution()
    execution.call.end(Code.UNAVAILABLE, "Socket closed", connection_lost=True)
    assert execution.worker.free == 0
    assert execution.worker.probe_wanted.is_set()


def test_own_cancel_ends_without_error_and_place_waits_for_the_stop() -> None:
    execution = Execution()
    execution.stream.cancel()
    assert execution.call.cancelled
    execution.call.end(Code.CANCELLED)
    assert execution.sink.end == ToolEnd(None, cancelled=True)
    assert execution.given_back == ["run-1"]


def test_deadline_place_waits_for_the_stop() -> None:
    execution = Execution()
    execution.call.end(Code.DEADLINE_EXCEEDED)
    assert execution.given_back == ["run-1"]


def test_undecodable_message_cancels_the_call_and_is_an_error() -> None:
    execution = Execution()
    execution.call.sink.on_messages([b"\xff\xff\xff"])
    assert execution.call.cancelled
    execution.call.end(Code.CANCELLED)
    assert execution.sink.end.error is not None
    assert execution.sink.end.error.code is Code.INTERNAL
    assert not execution.sink.end.cancelled


def test_pause_and_resume_reach_the_transport_and_are_harmless_after_the_end() -> None:
    execution = Execution()
    execution.stream.pause_reading()
    assert execution.call.paused
    execution.stream.resume_reading()
    assert not execution.call.paused
    execution.call.end()
    execution.stream.pause_reading()
    execution.stream.cancel()
    assert not execution.call.paused
    assert not execution.call.cancelled
