"""One execution on a worker: its request encoded, the method chosen, its messages decoded into batches.

Made by a Lease, called by the transport. Three methods carry an execution, and the sink can't tell which:

    StreamTool            our workers     ToolChunks: many chunks a message
    ExecuteStreamingTool  any worker      ToolChunk: one chunk a message
    ExecuteTool           unary calls     ExecuteToolResponse: one answer, delivered as one chunk

One `on_messages` is one `on_chunks`. A chunk costs a few attribute reads; only a batch in which some chunk
carries more than data (final, metadata, an odd payload) is gone through chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

from google.protobuf.message import DecodeError
from mypy_extensions import trait

from gateway.call import NOTHING, ToolCall
from gateway.codec.toolchunk import end_mark, plain_payloads
from gateway.codec.toolrequest import encode_request
from gateway.codec.values import json_payload, result_json
from gateway.errors import Code, GatewayError, ToolFailed
from gateway.events import ChunkAttributes, Marks
from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolResponse, ToolChunk
from gateway.rpc.worker_pb2 import ToolChunks
from gateway.transport.base import CallStatus, Metadata, StreamCall, StreamSink
from gateway.value import Value
from gateway.workers.failure import answer_error, status_error, was_told
from gateway.workers.lull import Lull
from gateway.workers.worker import Worker

EXECUTE_TOOL = "/snakepit.bridge.BridgeService/ExecuteTool"
EXECUTE_STREAMING_TOOL = "/snakepit.bridge.BridgeService/ExecuteStreamingTool"
STREAM_TOOL = "/gateway.rpc.WorkerService/StreamTool"
# Longer than a lull is waited for.
_LULL_GRACE_S = 1.0
RUN_ID_HEADER = "x-gateway-run-id"
# Finals without data that follow each other; what more there are says nothing new.
MARKS_LIMIT = 64
# How nearly every stream of a Snakepit worker ends.
PLAIN_MARK: Final[Marks] = (ChunkAttributes(is_final=True),)


@final
class ToolEnd(Value):
    """How an execution ended.

    `metadata` is the last final chunk's, empty without one (`has_final`); of a unary call, the answer's. `marks` are the
    finals without data behind the last chunk. `cancelled`: our own cancel ended it, and `error` is None.
    """

    __slots__ = ("error", "metadata", "has_final", "marks", "cancelled")  # noqa: RUF023

    def __init__(
        self,
        error: GatewayError | None,
        metadata: Mapping[str, str] = NOTHING,
        has_final: bool = False,
        marks: Marks = (),
        cancelled: bool = False,
    ) -> None:
        self.error = error
        self.metadata = metadata
        self.has_final = has_final
        self.marks = marks
        self.cancelled = cancelled


@trait
class ToolSink:
    """Who an execution delivers to. Called from the event loop; must not raise and must not block."""

    __slots__ = ()

    def on_chunks(self, payloads: list[bytes], size_bytes: int, attributes: dict[int, ChunkAttributes] | None) -> None:
        """Take chunks that arrived together: JSON texts in order, their total length, and what some carry besides.

        `attributes` is keyed by the index into `payloads`; None where no chunk carries anything. Both are the sink's to keep.
        """
        raise NotImplementedError

    def on_headers(self, headers: Sequence[tuple[str, str]]) -> None:
        """Take what an upstream has said of its answer ahead of it; called once at most, before the first chunk."""

    def on_end(self, end: ToolEnd) -> None:
        """The execution is over; called exactly once, after the last chunk."""
        raise NotImplementedError


@final
class ToolStream(StreamSink):
    """One call in progress: a StreamSink to the transport, a StreamCall to the run that started it."""

    __slots__ = (
        "_call",
        "_cancelled",
        "_failure",
        "_final_metadata",
        "_give_back",
        "_has_final",
        "_lull",
        "_marks",
        "_run_id",
        "_seen",
        "_sink",
        "_stalled_bytes",
        "_stream",
        "_take",
        "_timeout_s",
        "_worker",
    )

    def __init__(
        self,
        worker: Worker,
        call: ToolCall,
        run_id: str,
        timeout_s: float,
        sink: ToolSink,
        give_back: Callable[[Worker, str | None], None],
    ) -> None:
        """`give_back(worker, run_id)` is called once, after `sink.on_end`; see Lease."""
        self._worker = worker
        self._call = call
        self._run_id = run_id
        self._timeout_s = timeout_s
        self._sink = sink
        self._give_back = give_back
        self._stream: StreamCall | None = None
        self._cancelled = False
        self._failure: GatewayError | None = None
        self._has_final = False
        self._final_metadata = NOTHING
        # Finals without data since the last chunk.
        self._marks: Marks = ()
        # A plain function: a bound method would tie a knot that only the garbage collector undoes.
        self._take = ToolStream._take_chunks
        # Chunks so far, finals without data not counted: as the run numbers them.
        self._seen = 0
        # Set once the call is to end, where it may only in a lull: what comes is dropped.
        self._lull: Lull | None = None
        # What has come since the run wants no more, where the worker must not be made to wait; -1: it does.
        self._stalled_bytes = -1

    def open(self, metadata: Metadata) -> ToolStream:
        """Start the call. Raises TypeError for an argument that has no JSON form."""
        worker, call = self._worker, self._call
        request = encode_request(call, worker.session_id_for(call), worker.dialect.metadata(call, self._timeout_s))
        if not call.streaming:
            method, self._take = EXECUTE_TOOL, ToolStream._take_answer
        elif worker.batches:
            method, self._take = STREAM_TOOL, ToolStream._take_batches
        else:
            method = EXECUTE_STREAMING_TOOL
        headers = [*metadata, (RUN_ID_HEADER, self._run_id)]
        timeout_s = self._timeout_s
        if worker.breaks_when_stalled:
            # The run's own deadline ends the call well; the worker's, a moment later, would not.
            timeout_s += _LULL_GRACE_S
        self._stream = worker.channel.open_stream(method, request, self, timeout_s=timeout_s, metadata=headers)
        return self

    # The run's side: StreamCall.

    def pause_reading(self) -> None:
        if self._stream is None:
            return
        if self._worker.breaks_when_stalled:
            self._stalled_bytes = max(0, self._stalled_bytes)
        else:
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        self._stalled_bytes = -1
        if self._stream is not None and not self._worker.breaks_when_stalled:
            self._stream.resume_reading()

    def cancel(self) -> None:
        if self._stream is not None:
            self._cancelled = True
            self._break_off()

    def _break_off(self) -> None:
        """End the call: at once, or at the next lull where the worker needs that."""
        if self._stream is None or self._lull is not None:
            return
        if self._worker.breaks_when_stalled:
            self._lull = Lull(self._stream)
        else:
            self._stream.cancel()

    # The transport's side: StreamSink.

    def on_messages(self, messages: list[bytes]) -> None:
        self._worker.heard = True
        if self._lull is not None:
            self._lull.drop(messages)
            return
        try:
            self._take(self, messages)
        except DecodeError:
            self._failure = ToolFailed(Code.INTERNAL, f"worker {self._worker.id} sent a message that can't be decoded")
            self._break_off()
        if self._stalled_bytes >= 0:
            self._count_stall(messages)

    def on_close(self, status: CallStatus) -> None:
        told = was_told(status)
        if status.connection_lost:
            self._worker.suspect()
        cancelled = self._cancelled and status.code is Code.CANCELLED and self._failure is None
        if status.message and status.code is not Code.OK:
            message = self._worker.dialect.told(status.message, self._call)
            status = CallStatus(status.code, message, status.details, status.trailers, status.connection_lost)
        error = None if cancelled else self._failure or status_error(status, self._worker.id, self._timeout_s)
        if error is None and not cancelled and not self._call.streaming and not self._has_final:
            error = ToolFailed(Code.INTERNAL, f"worker {self._worker.id} ended a unary call without an answer")
        self._stream = None
        if self._lull is not None:
            self._lull.close()
            if self._lull.was_forced:
                self._worker.lost_thread()
        try:
            self._sink.on_end(ToolEnd(error, self._final_metadata, self._has_final, self._marks, cancelled))
        finally:
            self._give_back(self._worker, None if told or status.connection_lost else self._run_id)

    def _count_stall(self, messages: list[bytes]) -> None:
        """End the call when too much has come that nobody takes: what has come is delivered, the worker is free of us at once."""
        limit_bytes = self._worker.stall_limit_bytes
        self._stalled_bytes += sum(map(len, messages))
        if limit_bytes is not None and self._stalled_bytes > limit_bytes and self._lull is None:
            detail = (
                f"{self._stalled_bytes} bytes came from worker {self._worker.id} that a slow reader has not taken; the pool's "
                f"stall_limit_bytes is {limit_bytes}. Such a worker can't be made to wait, so the call was ended: read faster, or with "
                "_overflow=latest"
            )
            self._failure = GatewayError("slow-reader", detail)
            self._break_off()

    # Decoding.

    def _take_batches(self, messages: list[bytes]) -> None:
        check = not self._worker.trusts_json
        payloads: list[bytes] = []
        attributes: dict[int, ChunkAttributes] = {}
        for message in messages:
            batch = ToolChunks.FromString(message)
            if batch.payloads:
                if self._marks:
                    attributes[len(payloads)] = self._marked()
                payloads += map(json_payload, batch.payloads) if check else batch.payloads
                self._seen += len(batch.payloads)
            if batch.chunks:
                self._translate(batch.chunks, payloads, attributes)
        if payloads:
            self._sink.on_chunks(payloads, sum(map(len, payloads)), attributes or None)

    def _take_chunks(self, messages: list[bytes]) -> None:
        payloads = plain_payloads(messages) if self._worker.trusts_json else []
        attributes: dict[int, ChunkAttributes] = {}
        if payloads:
            if self._marks:
                attributes[0] = self._marked()
            self._seen += len(payloads)
        odd = len(messages) - len(payloads)
        if odd == 1 and (final_id := end_mark(messages[-1])) is not None:
            self._mark(final_id, NOTHING)
        elif odd:
            self._translate(list(map(ToolChunk.FromString, messages[len(payloads) :])), payloads, attributes)
        if payloads:
            self._sink.on_chunks(payloads, sum(map(len, payloads)), attributes or None)

    def _take_answer(self, messages: list[bytes]) -> None:
        answer = ExecuteToolResponse.FromString(messages[0])
        self._final_metadata = dict(answer.metadata)
        self._has_final = True
        if answer.success:
            payload = result_json(answer.result, answer.binary_result)
            self._sink.on_chunks([payload], len(payload), None)
        else:
            self._failure = answer_error(self._worker.dialect.told(answer.error_message, self._call), self._final_metadata)

    def _translate(self, chunks: Sequence[ToolChunk], payloads: list[bytes], attributes: dict[int, ChunkAttributes]) -> None:
        """Add the payloads of a batch, chunk by chunk, and what some carry besides.

        Finals stay where they were: Snakepit allows several, and chunks after one.
        """
        check = not self._worker.trusts_json
        for chunk in chunks:
            data = chunk.data
            metadata = dict(sent) if (sent := chunk.metadata) else NOTHING
            if chunk.is_final:
                if not data:
                    self._mark(chunk.chunk_id, metadata)
                    continue  # an end mark, not a value
                self._has_final, self._final_metadata = True, metadata
            payload = json_payload(data) if check else data or b"null"
            raw = data if check and payload is not data else None
            self._seen += 1
            chunk_id = self._odd_id(chunk.chunk_id, self._seen)
            if chunk.is_final or metadata or raw is not None or chunk_id is not None or self._marks:
                attributes[len(payloads)] = ChunkAttributes(chunk.is_final, metadata, raw, chunk_id, self._marks)
                self._marks = ()
            payloads.append(payload)

    def _mark(self, chunk_id: str, metadata: Mapping[str, str]) -> None:
        """Note a final without data: it is told ahead of the next chunk, or at the end."""
        self._has_final, self._final_metadata = True, metadata
        odd_id = self._odd_id(chunk_id, self._seen + 1)
        if odd_id is None and not metadata and not self._marks:
            self._marks = PLAIN_MARK
        elif len(self._marks) < MARKS_LIMIT:
            self._marks += (ChunkAttributes(True, metadata, None, odd_id),)

    def _marked(self) -> ChunkAttributes:
        """Return what a plain chunk carries that has final marks ahead of it."""
        marks, self._marks = self._marks, ()
        return ChunkAttributes(False, NOTHING, None, None, marks)

    def _odd_id(self, chunk_id: str, number: int) -> str | None:
        """Return a chunk's id, None where it is the one that a chunk of this number has anyway."""
        return chunk_id if chunk_id and chunk_id != f"{self._call.tool}-{number}" else None


def execute_tool(
    worker: Worker,
    call: ToolCall,
    run_id: str,
    timeout_s: float,
    sink: ToolSink,
    metadata: Metadata,
    give_back: Callable[[Worker, str | None], None],
) -> ToolStream:
    """Start a call of a tool: see Lease.execute. Raises TypeError for an argument that has no JSON form."""
    return ToolStream(worker, call, run_id, timeout_s, sink, give_back).open(metadata)
