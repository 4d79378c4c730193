"""The streams of one connection: which are open, which have news, what each has taken of the peer's windows.

Owned by connection.py; reader.py puts messages in. Memory is bounded here: a stream whose window is overrun ends.
Standard: RFC 9113 §5.1 (states), §5.2 (flow control), §5.4.2 (stream errors).
"""

from __future__ import annotations

from typing import Generic, TypeVar

from gateway.errors import Code
from gateway.transport.base import WINDOW_BYTES, CallStatus
from gateway.transport.frames import WINDOW_MAX, ErrorCode, PeerError, rst_stream, window_update
from gateway.transport.stream import Stream, StreamState
from gateway.transport.upload import Upload

# The connection's window is credited on receipt and is so large that it never binds: each stream's own window
# bounds what it can hold, so one that stands still takes nothing from the others.
CONNECTION_WINDOW_BYTES = 1 << 30
# A paused stream gets no credit; others in steps of this size, so a WINDOW_UPDATE is one in thousands of frames.
CREDIT_STEP_BYTES = WINDOW_BYTES // 2

S = TypeVar("S", bound=Stream)


class OpenStreams(Generic[S]):
    """The table of open streams. A stream leaves it when it ends, from whichever side."""

    def __init__(self, out: list[bytes], upload: Upload) -> None:
        """`out` is the connection's output; frames are appended to it."""
        self.by_id: dict[int, S] = {}
        self._out = out
        self._upload = upload
        self._next_id = 1
        self._news: list[S] = []
        self._uncredited_bytes = 0

    @property
    def ids_left(self) -> bool:
        """Whether another stream can be added (RFC 9113 §5.1.1: ids are never used twice)."""
        return self._next_id <= WINDOW_MAX

    def add(self, stream: S) -> None:
        """Open `stream` under the next id."""
        stream.id = self._next_id
        stream.state = StreamState.WAITING
        self._next_id += 2
        self.by_id[stream.id] = stream

    def take_news(self) -> list[S]:
        """Return the streams with news, each once, and keep none of them."""
        news, self._news = self._news, []
        return news

    def messages_of(self, stream: S) -> list[bytes]:
        """Return the list for `stream`'s messages, and note that it has news."""
        messages = stream.messages
        if messages is None:
            messages = stream.messages = []
            self._news.append(stream)
        return messages

    def account(self, stream: S, received_bytes: int) -> None:
        """Book what DATA frames took from both windows."""
        self._uncredited_bytes += received_bytes
        stream.uncredited += received_bytes
        if stream.uncredited > WINDOW_BYTES:
            status = CallStatus(Code.INTERNAL, "the worker sent more than the stream's window allows")
            self.end(stream, status, ErrorCode.FLOW_CONTROL_ERROR)

    def account_unclaimed(self, received_bytes: int) -> None:
        """Book DATA of a stream that is over: the connection's window it takes all the same."""
        self._uncredited_bytes += received_bytes

    def credit(self, stream: S) -> None:
        """Give the peer back the window for what `stream` has received, if it is not paused and it is worth a frame."""
        if stream.uncredited >= CREDIT_STEP_BYTES and not stream.paused and stream.state is not StreamState.ENDED:
            self._out.append(window_update(stream.id, stream.uncredited))
            stream.uncredited = 0

    def credit_connection(self) -> None:
        """Give back the connection's window, if it is worth a frame."""
        if self._uncredited_bytes >= CONNECTION_WINDOW_BYTES // 2:
            self._out.append(window_update(0, self._uncredited_bytes))
            self._uncredited_bytes = 0

    def end(self, stream: S, status: CallStatus, reset: ErrorCode | None = None) -> None:
        """Note how `stream` ended; `reset` None means that the peer has ended its half. Does nothing when it has ended."""
        if stream.state is StreamState.ENDED:
            return
        stream.status = status
        self.messages_of(stream)
        # RFC 9113 §8.1: once the answer is whole, the rest of the request needn't be sent.
        self.forget(stream, ErrorCode.CANCEL if reset is None and stream.is_sending else reset)

    def forget(self, stream: S, reset: ErrorCode | None) -> None:
        """Let go of an open stream, resetting it where the peer may still be busy with it."""
        stream.state = StreamState.ENDED
        if reset is not None:
            self._out.append(rst_stream(stream.id, reset))
        self._upload.forget(stream)
        del self.by_id[stream.id]

    def check_known(self, stream_id: int) -> None:
        """Check that a frame's stream is one that was opened here, however long ago.

        Raises:
            PeerError: it is the connection itself, one of the peer's own, or idle.
        """
        if not stream_id & 1 or stream_id >= self._next_id:
            raise PeerError(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened")
