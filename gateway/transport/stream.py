"""One HTTP/2 stream as a gRPC call sees it: what has arrived, how it ended, what may still be sent.

Fed and owned by connection.py; lane.py's calls derive from it. Sans-I/O: nothing here writes or calls out.
Standards: RFC 9113 §5.1, gRPC over HTTP/2 "Responses".

| state    | HEADERS                                        | HEADERS + END_STREAM   | DATA              | DATA + END_STREAM  | RST_STREAM |
|----------|------------------------------------------------|------------------------|-------------------|--------------------|------------|
| IDLE     | (the connection refuses frames of idle streams)|                        |                   |                    |            |
| WAITING  | 1xx: WAITING; 200, gRPC: ANSWERED; else ENDED  | ENDED (trailers only)  | ENDED (INTERNAL)  | ENDED (INTERNAL)   | ENDED      |
| ANSWERED | ENDED (INTERNAL: trailers must end the stream) | ENDED (trailers)       | ANSWERED          | ENDED (UNKNOWN)    | ENDED      |
| ENDED    | skipped                                        | skipped                | skipped           | skipped            | skipped    |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from gateway.call import NOTHING
from gateway.errors import Code
from gateway.transport.base import CallStatus
from gateway.transport.messages import MessageAssembler, MessageError
from gateway.transport.outgoing import Outgoing
from gateway.transport.status import status_from_http, status_from_trailers


class StreamState(Enum):
    """The column `state` of the table above."""

    IDLE = auto()
    WAITING = auto()
    ANSWERED = auto()
    ENDED = auto()


class Stream:
    """One call's half of the connection's state.

    `messages` is what has arrived since it was last taken, None where the stream has nothing to tell: so it is
    also the mark that the stream is on the connection's list of those to deliver. It is bounded by one socket
    read, which ends in a delivery. `status` is set once, in ENDED.
    """

    __slots__ = (
        "_assembler",
        "answer_headers",
        "at_border",
        "id",
        "messages",
        "outgoing",
        "paused",
        "send_window",
        "state",
        "status",
        "uncredited",
        "unsent",
    )

    def __init__(self) -> None:
        self.id = 0
        self.state = StreamState.IDLE
        self.messages: list[bytes] | None = None
        self.status: CallStatus | None = None
        self.paused = False
        # Bytes received that the peer's window has not got back yet: at most WINDOW_BYTES.
        self.uncredited = 0
        # The request's bytes that the peer's windows have no room for, and the stream's window for them.
        self.unsent: memoryview | None = None
        # What comes after that; None where the request is one message, known from the beginning.
        self.outgoing: Outgoing | None = None
        self.send_window = 0
        # Whether an answer is under way and the next byte of DATA begins a message.
        self.at_border = False
        # The header block that began the answer; shared with others, not to be changed.
        self.answer_headers: Mapping[str, str] = NOTHING
        # Made for the first message that is cut: many streams never see one.
        self._assembler: MessageAssembler | None = None

    @property
    def is_sending(self) -> bool:
        """Whether the peer has yet to hear that the request is complete."""
        return self.unsent is not None or (self.outgoing is not None and not self.outgoing.closed)

    def take_headers(self, fields: Mapping[str, str], end_stream: bool) -> CallStatus | None:
        """Take a header block; return the status if it ends the call."""
        if self.state is StreamState.ANSWERED:
            if not end_stream:
                return CallStatus(Code.INTERNAL, "the worker sent a second header block that doesn't end the stream")
            return self._checked(status_from_trailers(fields))
        http_status = fields.get(":status", "")
        if http_status.startswith("1") and not end_stream:
            return None  # an interim answer (RFC 9110 §15.2)
        content_type = fields.get("content-type", "")
        if "grpc-status" in fields and end_stream:
            return status_from_trailers(fields)
        if http_status != "200" or not content_type.startswith("application/grpc"):
            return status_from_http(http_status, content_type)
        if end_stream:
            return status_from_trailers(fields)
        self.state = StreamState.ANSWERED
        self.answer_headers = fields
        self.at_border = True
        return None

    def take_data(self, data: bytes, start: int, stop: int, messages: list[bytes], limit_bytes: int) -> CallStatus | None:
        """Take `data[start:stop]` of a DATA frame's payload into `messages`; return the status if it ends the call."""
        if self.state is not StreamState.ANSWERED:
            return CallStatus(Code.INTERNAL, "the worker sent data before its headers")
        if self._assembler is None:
            self._assembler = MessageAssembler(limit_bytes)
        try:
            self._assembler.feed(data, start, stop, messages)
        except MessageError as exc:
            return CallStatus(exc.code, str(exc))
        self.at_border = self._assembler.at_border
        return None

    def end_without_trailers(self) -> CallStatus:
        """Return the status for END_STREAM on a DATA frame: gRPC's status was never said."""
        return self._checked(status_from_trailers({}))

    def _checked(self, status: CallStatus) -> CallStatus:
        """Return `status`, unless it claims success in the middle of a message."""
        if status.code is Code.OK and not self.at_border:
            return CallStatus(Code.INTERNAL, "the worker ended the stream in the middle of a message")
        return status
