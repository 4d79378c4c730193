"""One call of a gRPC service's method: its request sent, its answers turned into JSON batch by batch, its status into an error.

Made by a lease of a ServicePool, called by the transport; what it is for a worker, toolstream.py is. One `on_messages` is
one `on_chunks`; nothing is done for each message but its translation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast, final

from gateway.call import NOTHING, AnswerCodec, MessageFeed, ToolCall
from gateway.correlation import CORRELATION_HEADER
from gateway.errors import Code, GatewayError, RpcFailed
from gateway.services.metadata import headers_of
from gateway.services.status import rpc_error
from gateway.services.tool import RpcTool
from gateway.transport.base import CallStatus, DuplexSink, Metadata, StreamCall, WireCall
from gateway.workers.toolstream import ToolEnd, ToolSink
from gateway.workers.worker import Worker

REQUEST_ID = "x-request-id"


@final
class RpcStream(DuplexSink):
    """One call in progress: a DuplexSink to the transport, a StreamCall to the run that started it."""

    __slots__ = (
        "_answers",
        "_cancelled",
        "_codec",
        "_failure",
        "_feed",
        "_give_back",
        "_sink",
        "_stream",
        "_timeout_s",
        "_tool",
        "_worker",
    )

    def __init__(
        self, worker: Worker, call: ToolCall, timeout_s: float, sink: ToolSink, give_back: Callable[[Worker, str | None], None]
    ) -> None:
        """`give_back(worker, None)` is called once, after `sink.on_end`; see Lease."""
        self._worker = worker
        self._tool = cast(RpcTool, worker.description.tools[call.tool])
        self._timeout_s = timeout_s
        self._sink = sink
        self._give_back = give_back
        answers = None if call.rpc is None else call.rpc.answers
        self._codec: AnswerCodec = self._tool.method.response if answers is None else answers
        # Where its request messages come from; None: there is one.
        self._feed: MessageFeed | None = None if call.rpc is None else call.rpc.feed
        self._stream: WireCall | None = None
        self._cancelled = False
        self._failure: GatewayError | None = None
        # How many messages have come.
        self._answers = 0

    def open(self, call: ToolCall, metadata: Metadata) -> RpcStream:
        """Start the call; what it carries is not kept.

        Raises:
            GatewayError: `invalid-message`: the arguments make none.
        """
        method = self._tool.method
        headers = [(REQUEST_ID if name == CORRELATION_HEADER else name, value) for name, value in metadata]
        if call.rpc is None:
            message = method.request.from_json(call.arguments)
        else:
            message = call.rpc.message
            headers += call.rpc.metadata
        channel = self._worker.channel
        if self._feed is not None:
            self._stream = duplex = channel.open_duplex(method.path, self, timeout_s=self._timeout_s, metadata=headers)
            self._feed.attach(duplex)
        else:
            self._stream = channel.open_stream(method.path, message, self, timeout_s=self._timeout_s, metadata=headers)
        return self

    # The run's side: StreamCall.

    def pause_reading(self) -> None:
        if self._stream is not None:
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        if self._stream is not None:
            self._stream.resume_reading()

    def cancel(self) -> None:
        if self._stream is not None:
            self._cancelled = True
            self._stream.cancel()

    # The transport's side: StreamSink.

    def on_messages(self, messages: list[bytes]) -> None:
        self._worker.heard = True
        if self._failure is not None:
            return
        if not self._answers:
            self._tell_headers()
        self._answers += len(messages)
        if not self._tool.method.kind.server_streams and self._answers > 1:
            self._give_up(RpcFailed(Code.INTERNAL, f"{self._tool.name} is no streaming method, but answered more than once"))
            return
        try:
            payloads = self._codec.to_json_all(messages)
        except GatewayError as error:
            payloads = self._readable(messages)
            self._give_up(error)
        if payloads:
            self._sink.on_chunks(payloads, sum(map(len, payloads)), None)

    def on_sendable(self) -> None:
        if self._feed is not None:
            self._feed.sendable()

    def on_close(self, status: CallStatus) -> None:
        if self._feed is not None:
            self._feed.close()
        tool = self._tool
        if status.connection_lost:
            self._worker.suspect()
        cancelled = self._cancelled and status.code is Code.CANCELLED and self._failure is None
        error = None if cancelled else self._failure or rpc_error(status, tool.name, tool.pool, self._timeout_s, tool.directory)
        if error is None and not cancelled and not self._answers and not tool.method.kind.server_streams:
            error = RpcFailed(Code.INTERNAL, f"{tool.name} ended without an answer")
        self._stream = None
        trailers = dict(headers_of(status.trailers, tool.options.headers_out)) if status.trailers else NOTHING
        try:
            self._sink.on_end(ToolEnd(error, trailers, has_final=True, cancelled=cancelled))
        finally:
            self._give_back(self._worker, None)

    def _tell_headers(self) -> None:
        allowed = self._tool.options.headers_out
        if allowed and self._stream is not None and (headers := headers_of(self._stream.headers(), allowed)):
            self._sink.on_headers(headers)

    def _readable(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return the answers ahead of the one that can't be read."""
        payloads: list[bytes] = []
        for message in messages:
            try:
                payloads.append(self._codec.to_json(message))
            except GatewayError:
                break
        return payloads

    def _give_up(self, error: GatewayError) -> None:
        self._failure = error
        if self._stream is not None:
            self._stream.cancel()


def execute_rpc(
    worker: Worker,
    call: ToolCall,
    run_id: str,
    timeout_s: float,
    sink: ToolSink,
    metadata: Metadata,
    give_back: Callable[[Worker, str | None], None],
) -> StreamCall:
    """Start a call of a method: see Lease.execute.

    Raises:
        GatewayError: as RpcStream.open.
    """
    return RpcStream(worker, call, timeout_s, sink, give_back).open(call, metadata)
