"""An HTTP/2 connection seen from a gRPC client, Sans-I/O: bytes in; streams with news, and bytes, out.

Driven by link.py, which owns the socket; reader.py takes the frames apart, streams.py keeps the streams. `receive`
never raises: a peer that breaks the protocol ends the connection and all its streams, in order, after what had
arrived before. Memory is bounded by the windows: WINDOW_BYTES for each stream, one read for what isn't delivered.
Standards: RFC 9113, gRPC over HTTP/2.

| state    | begins with                                   | new streams | frames                                  |
|----------|-----------------------------------------------|-------------|-----------------------------------------|
| GREETING | our preface, SETTINGS and WINDOW_UPDATE       | no          | SETTINGS first; else a PeerError        |
| OPEN     | the peer's SETTINGS                           | yes         | all                                     |
| DRAINING | GOAWAY, or the last stream id is used up      | no          | all, until the last stream has ended    |
| CLOSED   | a PeerError, or `close`                       | no          | skipped                                 |
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Generic

from gateway.errors import Code
from gateway.transport.base import MESSAGE_LIMIT_BYTES, METADATA_LIMIT_BYTES, WINDOW_BYTES, CallStatus, Metadata
from gateway.transport.frames import (
    ACK,
    DEFAULT_MAX_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    GOAWAY,
    NO_FLAGS,
    PING,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_ID_MASK,
    U16_U32,
    U32,
    U32_PAIR,
    WINDOW_MAX,
    WINDOW_UPDATE,
    ErrorCode,
    PeerError,
    Setting,
    check,
    check_size,
    error_name,
    frame,
    goaway,
    header_block,
    settings,
    window_update,
)
from gateway.transport.headers import NO_DYNAMIC_TABLE, AnswerHeaders, HeadersTooLarge, RequestHeaders
from gateway.transport.reader import MAX_FRAME_BYTES, FrameReader
from gateway.transport.status import status_from_reset
from gateway.transport.streams import CONNECTION_WINDOW_BYTES, OpenStreams, S
from gateway.transport.upload import Upload

# Answers to PING and SETTINGS that may wait for the peer to read them (CVE-2019-9512, CVE-2019-9515).
REPLIES_LIMIT = 1000


class ConnectionState(Enum):
    """The column `state` of the table above."""

    GREETING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


class ClientConnection(Generic[S]):
    """The state of one connection. After every method, what `take_output` returns is to be sent."""

    def __init__(self, scheme: str, authority: str, *, message_limit_bytes: int = MESSAGE_LIMIT_BYTES) -> None:
        self.state = ConnectionState.GREETING
        self.failure = ""  # for people: why it is CLOSED or DRAINING
        self._authority = authority
        self._max_streams = WINDOW_MAX
        self._replies = 0
        offer = {
            Setting.HEADER_TABLE_SIZE: 0,
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: METADATA_LIMIT_BYTES,
        }
        self._out = [PREFACE, settings(offer), window_update(0, CONNECTION_WINDOW_BYTES - DEFAULT_WINDOW_BYTES)]
        self._upload = Upload(self._out)
        self._streams = OpenStreams[S](self._out, self._upload)
        self._reader = FrameReader[S](self._streams, self._take_block, self._take_frame, message_limit_bytes)
        self._requests = RequestHeaders(scheme, authority)
        self._answers = AnswerHeaders()
        self._first_block = NO_DYNAMIC_TABLE

    @property
    def has_room(self) -> bool:
        """Whether `open` may be called."""
        return self.state is ConnectionState.OPEN and len(self._streams.by_id) < self._max_streams

    @property
    def open_streams(self) -> int:
        """How many streams have not ended."""
        return len(self._streams.by_id)

    def open(self, stream: S, method: str, request: bytes, timeout_s: float | None, metadata: Metadata) -> None:
        """Send a request on a new stream. The metadata must have been checked, and there must be room.

        A stream with an Outgoing sends the messages in it, and `request` is not looked at.
        """
        self._streams.add(stream)
        block = self._first_block + self._requests.block(method, timeout_s, metadata)
        self._first_block = b""
        self._out.append(header_block(stream.id, block, self._upload.max_frame_bytes))
        if stream.outgoing is None:
            self._upload.send(stream, b"\x00" + U32.pack(len(request)) + request)
        else:
            self._upload.open(stream)
        if not self._streams.ids_left:
            self._drain("its stream ids are used up")

    def push(self, stream: S) -> None:
        """Send what a stream's Outgoing holds. Harmless after its end."""
        if self._streams.by_id.get(stream.id) is stream:
            self._upload.push(stream)

    def cork(self) -> None:
        """Send no messages of an Outgoing until `uncork`: what is to be sent can't be, and would pile up."""
        self._upload.cork()

    def uncork(self) -> None:
        """Send them on."""
        self._upload.uncork()

    def take_freed(self) -> list[S]:
        """Return the open streams whose Outgoing has room again; those that a read has freed are among its news."""
        freed = self._upload.take_freed()
        return [self._streams.by_id[stream.id] for stream in freed if stream.id in self._streams.by_id] if freed else []

    def cancel(self, stream: S) -> None:
        """Reset `stream`; nothing more arrives for it. Harmless after its end."""
        if self._streams.by_id.get(stream.id) is stream:
            self._streams.forget(stream, ErrorCode.CANCEL)

    def credit(self, stream: S) -> None:
        """Give the peer back the window for what `stream` has received and its reader has taken, unless it is paused."""
        self._streams.credit(stream)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._out.append(frame(PING, NO_FLAGS, 0, b"gateway?"))

    def close(self, code: ErrorCode, failure: str) -> list[S]:
        """End every stream with UNAVAILABLE and say GOAWAY; return the streams. Does nothing when CLOSED."""
        if self.state is not ConnectionState.CLOSED:
            self._fail(code, failure)
        return self._streams.take_news()

    def take_output(self) -> bytes:
        """Return what is to be sent now, in order."""
        if not self._out:
            return b""
        output = b"".join(self._out)
        self._out.clear()
        return output

    def output_was_read(self) -> None:
        """Note that the peer takes what it is sent: its answers no longer pile up."""
        self._replies = 0

    def receive(self, data: bytes) -> list[S]:
        """Take what one read of the socket brought; return the streams with news, each once.

        Take each one's `messages` and look at its `status`, then `credit` it.
        """
        if self.state is not ConnectionState.CLOSED:
            try:
                self._reader.feed(data)
            except PeerError as exc:
                self._fail(exc.code, f"the worker broke the HTTP/2 protocol: {exc}")
            self._streams.credit_connection()
            for stream in self.take_freed():
                self._streams.messages_of(stream)
        return self._streams.take_news()

    # -- what the reader hands over ------------------------------------------------------------------------

    def _take_block(self, stream_id: int, ends: bool, block: bytes) -> None:
        stream = self._streams.by_id.get(stream_id)
        try:
            fields = self._answers.decode(block)  # also for a stream that is over: the next block may depend on it
        except HeadersTooLarge as exc:
            status: CallStatus | None = CallStatus(Code.RESOURCE_EXHAUSTED, str(exc))
        else:
            status = stream.take_headers(fields, ends) if stream is not None else None
        if stream is not None and status is not None:
            self._streams.end(stream, status, None if ends else ErrorCode.CANCEL)

    def _take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._take_window_update(stream_id, payload)
        elif kind == RST_STREAM:
            self._take_reset(stream_id, payload)
        elif kind == PING:
            self._take_ping(flags, stream_id, payload)
        elif kind == SETTINGS:
            self._take_settings(flags, stream_id, payload)
        elif kind == GOAWAY:
            self._take_goaway(stream_id, payload)
        elif kind == PUSH_PROMISE:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, though push is disabled")
        # PRIORITY means nothing to a client, and unknown types are to be skipped.

    def _take_reset(self, stream_id: int, payload: bytes) -> None:
        self._streams.check_known(stream_id)
        check_size(len(payload) == 4, "RST_STREAM")
        stream = self._streams.by_id.get(stream_id)
        if stream is not None:
            self._upload.forget(stream)  # or it would be reset in return
            self._streams.end(stream, status_from_reset(U32.unpack(payload)[0]))

    def _take_window_update(self, stream_id: int, payload: bytes) -> None:
        check_size(len(payload) == 4, "WINDOW_UPDATE")
        increment = U32.unpack(payload)[0] & WINDOW_MAX
        if stream_id == 0:
            check(increment > 0, "WINDOW_UPDATE by 0")
            self._upload.widen(increment)
            return
        self._streams.check_known(stream_id)
        stream = self._streams.by_id.get(stream_id)
        if stream is None:
            return
        if not increment:
            self._streams.end(stream, CallStatus(Code.INTERNAL, "the worker sent a WINDOW_UPDATE by 0"), ErrorCode.PROTOCOL_ERROR)
        elif not self._upload.widen_stream(stream, increment):
            self._streams.end(stream, CallStatus(Code.INTERNAL, "the stream's window is over 2^31-1"), ErrorCode.FLOW_CONTROL_ERROR)

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        check(stream_id == 0, "PING on a stream")
        check_size(len(payload) == 8, "PING")
        if not flags & ACK:
            self._reply(frame(PING, ACK, 0, payload))

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        check(stream_id == 0, "SETTINGS on a stream")
        if flags & ACK:
            check_size(not payload, "SETTINGS ACK")
            return
        check_size(len(payload) % 6 == 0, "SETTINGS")
        # Ahead of what a larger window lets go: until it reads this, the peer counts by the old one.
        self._reply(frame(SETTINGS, ACK, 0))
        for name, value in U16_U32.iter_unpack(payload):
            self._take_setting(name, value)
        if self.state is ConnectionState.GREETING:
            self.state = ConnectionState.OPEN

    def _take_setting(self, name: int, value: int) -> None:
        # HEADER_TABLE_SIZE does not matter: requests use no dynamic table. MAX_HEADER_LIST_SIZE is advice.
        if name == Setting.INITIAL_WINDOW_SIZE:
            if value > WINDOW_MAX:
                raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "an initial window over 2^31-1")
            self._upload.resize(value, list(self._streams.by_id.values()))
        elif name == Setting.MAX_FRAME_SIZE:
            check(DEFAULT_MAX_FRAME_BYTES <= value < 1 << 24, f"a frame limit of {value} bytes")
            self._upload.max_frame_bytes = value
        elif name == Setting.MAX_CONCURRENT_STREAMS:
            self._max_streams = value
        elif name == Setting.ENABLE_PUSH:
            check(value == 0, "a server that enables push")

    def _take_goaway(self, stream_id: int, payload: bytes) -> None:
        check(stream_id == 0, "GOAWAY on a stream")
        check_size(len(payload) >= 8, "GOAWAY")
        last_id, code = U32_PAIR.unpack_from(payload)
        last_id &= STREAM_ID_MASK
        said = payload[8:264].decode("utf-8", "replace")
        self._drain(f"the worker sent GOAWAY: {error_name(code)}" + (f", {said}" if said else ""))
        for stream in [stream for stream in self._streams.by_id.values() if stream.id > last_id]:
            self._upload.forget(stream)  # the peer has not looked at it and won't
            self._streams.end(stream, CallStatus(Code.UNAVAILABLE, self.failure, connection_lost=True))

    # -- states --------------------------------------------------------------------------------------------

    def _drain(self, failure: str) -> None:
        self.state = ConnectionState.DRAINING
        self.failure = failure

    def _fail(self, code: ErrorCode, failure: str) -> None:
        """Close: every stream ends UNAVAILABLE, and the peer hears why."""
        self.failure = failure if self.state is not ConnectionState.DRAINING else f"{failure}, after {self.failure}"
        self.state = ConnectionState.CLOSED
        lost = CallStatus(Code.UNAVAILABLE, f"connection to {self._authority} lost: {self.failure}", connection_lost=True)
        for stream in list(self._streams.by_id.values()):
            self._upload.forget(stream)
            self._streams.end(stream, lost)
        self._out.append(goaway(code, failure))

    def _reply(self, answer: bytes) -> None:
        self._replies += 1
        if self._replies > REPLIES_LIMIT:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, "it asks for answers that it doesn't read")
        self._out.append(answer)
