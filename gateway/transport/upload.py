"""The sending half of a connection: request bytes within the peer's flow-control windows.

Owned by connection.py. Most requests fit and leave with their headers in one write; the rest of a larger one
stays in its stream's `unsent` until WINDOW_UPDATE or SETTINGS makes room, first come, first served. What waits
is bounded by the requests themselves, which their callers hold anyway.
Standard: RFC 9113 §5.2 and §6.9.
"""

from __future__ import annotations

from collections.abc import Collection

from gateway.transport.frames import (
    DATA,
    DEFAULT_MAX_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    END_STREAM,
    NO_FLAGS,
    WINDOW_MAX,
    ErrorCode,
    PeerError,
    frame,
)
from gateway.transport.stream import Stream


class Upload:
    """The peer's windows and frame limit, and the streams that wait for them."""

    __slots__ = ("_blocked", "_out", "_window", "initial_window", "max_frame_bytes")

    def __init__(self, out: list[bytes]) -> None:
        """`out` is the connection's output; frames are appended to it."""
        self._out = out
        self._window = DEFAULT_WINDOW_BYTES
        self._blocked: dict[int, Stream] = {}
        self.initial_window = DEFAULT_WINDOW_BYTES
        self.max_frame_bytes = DEFAULT_MAX_FRAME_BYTES

    def send(self, stream: Stream, body: bytes) -> None:
        """Send `body` and END_STREAM, now as far as it fits."""
        stream.send_window = self.initial_window
        if len(body) <= self.max_frame_bytes and len(body) <= self._window and len(body) <= stream.send_window:
            self._window -= len(body)
            self._out.append(frame(DATA, END_STREAM, stream.id, body))
            return
        stream.unsent = memoryview(body)
        self._blocked[stream.id] = stream
        self._pump(stream)

    def forget(self, stream: Stream) -> None:
        """Drop what `stream` has not sent."""
        stream.unsent = None
        self._blocked.pop(stream.id, None)

    def widen(self, increment: int) -> None:
        """Take a WINDOW_UPDATE for the connection.

        Raises:
            PeerError: the window would pass 2^31-1.
        """
        self._window += increment
        if self._window > WINDOW_MAX:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1")
        for stream in list(self._blocked.values()):
            self._pump(stream)

    def widen_stream(self, stream: Stream, increment: int) -> bool:
        """Take a WINDOW_UPDATE for `stream`; return False where its window would pass 2^31-1."""
        stream.send_window += increment
        if stream.send_window > WINDOW_MAX:
            return False
        self._pump(stream)
        return True

    def resize(self, initial_window: int, streams: Collection[Stream]) -> None:
        """Take a new SETTINGS_INITIAL_WINDOW_SIZE: every stream's window moves by the difference, also below zero.

        Raises:
            PeerError: a stream's window would pass 2^31-1.
        """
        change = initial_window - self.initial_window
        self.initial_window = initial_window
        for stream in streams:
            if not self.widen_stream(stream, change):
                raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, f"the window of stream {stream.id} is over 2^31-1")

    def _pump(self, stream: Stream) -> None:
        """Send as much of `stream.unsent` as the windows allow, the last of it with END_STREAM."""
        while stream.unsent is not None:
            room = min(self._window, stream.send_window, self.max_frame_bytes)
            if room <= 0:
                return
            part, rest = stream.unsent[:room], stream.unsent[room:]
            self._window -= len(part)
            stream.send_window -= len(part)
            self._out.append(frame(DATA, NO_FLAGS if rest else END_STREAM, stream.id, part))
            stream.unsent = rest or None
        self._blocked.pop(stream.id, None)
