"""The sending half of a connection: request bytes within the peer's flow-control windows.

Owned by connection.py. Most requests fit and leave with their headers in one write; the rest of a larger one
stays in its stream's `unsent` until WINDOW_UPDATE or SETTINGS makes room, first come, first served. What waits
is bounded by the requests themselves, which their callers hold anyway; of a request in many messages by its Outgoing.
Those take turns, since one that goes on and on would have every window to itself, and they wait while the socket does.
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
from gateway.transport.outgoing import Outgoing
from gateway.transport.stream import Stream


class Upload:
    """The peer's windows and frame limit, and the streams that wait for them."""

    __slots__ = ("_blocked", "_corked", "_freed", "_out", "_window", "initial_window", "max_frame_bytes")

    def __init__(self, out: list[bytes]) -> None:
        """`out` is the connection's output; frames are appended to it."""
        self._out = out
        self._window = DEFAULT_WINDOW_BYTES
        self._blocked: dict[int, Stream] = {}
        self._corked = False
        # Streams that have room for more messages, and have yet to be told.
        self._freed: list[Stream] = []
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

    def open(self, stream: Stream) -> None:
        """Begin a request in many messages, with those that there are already."""
        stream.send_window = self.initial_window
        self.push(stream)

    def push(self, stream: Stream) -> None:
        """Send what there is of a request in many messages, now as far as it fits."""
        if (outgoing := stream.outgoing) is not None:
            outgoing.due = False
            self._pump_messages(stream, outgoing)

    def cork(self) -> None:
        """Send nothing more of such requests until `uncork`: the socket takes no more."""
        self._corked = True

    def uncork(self) -> None:
        """Send on."""
        self._corked = False
        self._pump_all()

    def take_freed(self) -> list[Stream]:
        """Return the streams that have room for messages again, and keep none of them."""
        freed = self._freed
        if freed:
            self._freed = []
        return freed

    def forget(self, stream: Stream) -> None:
        """Drop what `stream` has not sent."""
        stream.unsent = None
        if stream.outgoing is not None:
            stream.outgoing.close()
        self._blocked.pop(stream.id, None)

    def widen(self, increment: int) -> None:
        """Take a WINDOW_UPDATE for the connection.

        Raises:
            PeerError: the window would pass 2^31-1.
        """
        self._window += increment
        if self._window > WINDOW_MAX:
            raise PeerError(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1")
        self._pump_all()

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

    def _pump_all(self) -> None:
        for stream in list(self._blocked.values()):
            self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Send as much of `stream.unsent` as the windows allow, the last of it with END_STREAM."""
        if stream.outgoing is not None:
            self._pump_messages(stream, stream.outgoing)
            return
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

    def _pump_messages(self, stream: Stream, outgoing: Outgoing) -> None:
        """Send as much of a request in many messages as the windows allow; END_STREAM with the last of it, or alone where that is gone."""
        has_sent = waits = False
        while not outgoing.closed:
            unsent = stream.unsent or outgoing.take()
            if unsent is None and not outgoing.ended:
                break
            room = min(self._window, stream.send_window, self.max_frame_bytes)
            if self._corked or (unsent is not None and room <= 0):
                stream.unsent = unsent
                waits = True
                break
            part = unsent[:room] if unsent is not None else memoryview(b"")
            stream.unsent = (unsent[room:] or None) if unsent is not None else None
            self._window -= len(part)
            stream.send_window -= len(part)
            ends = outgoing.ended and stream.unsent is None and not outgoing.has_more
            self._out.append(frame(DATA, END_STREAM if ends else NO_FLAGS, stream.id, part))
            outgoing.sent(len(part))
            has_sent = True
            if ends:
                outgoing.close()
        if has_sent or not waits:
            self._blocked.pop(stream.id, None)
        if waits:
            # Behind the others that wait, where it has had its turn.
            self._blocked[stream.id] = stream
        if outgoing.freed:
            self._freed.append(stream)
