"""What a call with many request messages has yet to send: gRPC's length-prefixed messages, in a bounded buffer.

Filled by a call (laneduplex.py), also while it waits for a connection; emptied by upload.py as far as the peer's windows
reach. All that waits leaves together: one DATA frame holds as many messages as fit, however many sends they were.
Standard: gRPC over HTTP/2, "Length-Prefixed-Message"; END_STREAM is the half-close.

| state  | add                         | end      | what the upload takes                        |
|--------|-----------------------------|----------|----------------------------------------------|
| open   | kept, within the limit      | -> ended | all there is                                 |
| ended  | SendRefused                 | nothing  | all there is, END_STREAM with the last of it |
| closed | (not called)                | nothing  | nothing                                      |
"""

from __future__ import annotations

from typing import final

from gateway.transport.base import UNSENT_HIGH_BYTES, UNSENT_LIMIT_BYTES, UNSENT_LOW_BYTES, SendRefused
from gateway.transport.frames import U32
from gateway.transport.messages import PREFIX_BYTES


@final
class Outgoing:
    """One call's request messages between the call and the wire.

    `size_bytes` is what has not been sent, prefixes included. `ended`: there will be no more. `closed`: END_STREAM was sent, or the call
    is over. `freed`: there is room again, which the call has yet to be told.
    """

    __slots__ = ("_buffer", "_message_limit_bytes", "_told_full", "closed", "due", "ended", "freed", "size_bytes")

    def __init__(self, message_limit_bytes: int) -> None:
        self.size_bytes = 0
        self.ended = False
        self.closed = False
        self.freed = False
        # Whether the link knows that there is something to send.
        self.due = False
        self._buffer = bytearray()
        self._told_full = False
        self._message_limit_bytes = message_limit_bytes

    @property
    def is_full(self) -> bool:
        """Whether the call was told to wait."""
        return self._told_full

    def add(self, message: bytes) -> bool:
        """Keep a message; return whether there is room for more.

        Raises:
            SendRefused: it is too large, the half is closed, or the limit was reached long ago.
        """
        check_sendable(message, self.size_bytes, self._message_limit_bytes, ended=self.ended)
        self._buffer += b"\x00" + U32.pack(len(message))
        self._buffer += message
        self.size_bytes += PREFIX_BYTES + len(message)
        if self.size_bytes >= UNSENT_HIGH_BYTES:
            self._told_full = True
        return not self._told_full

    def take(self) -> memoryview | None:
        """Return what has been added since this was last asked, None where that is nothing; `size_bytes` counts it until it is `sent`."""
        if not self._buffer:
            return None
        taken, self._buffer = memoryview(self._buffer), bytearray()
        return taken

    @property
    def has_more(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._buffer)

    def sent(self, size_bytes: int) -> None:
        """Note that so much of what was taken is on the wire."""
        self.size_bytes -= size_bytes
        if self._told_full and self.size_bytes <= UNSENT_LOW_BYTES:
            self._told_full = False
            self.freed = True

    def close(self) -> None:
        """Drop what was not sent: END_STREAM is on the wire, or the call is over."""
        self.closed = True
        self.freed = self._told_full = False
        self.size_bytes = 0
        self._buffer = bytearray()


def check_sendable(message: bytes, unsent_bytes: int, limit_bytes: int, *, ended: bool) -> None:
    """Return if a call may be given another message.

    Raises:
        SendRefused: saying why it may not.
    """
    if ended:
        raise SendRefused("the sending half of the call was closed by `end_sending`")
    if len(message) > limit_bytes:
        raise SendRefused(f"a message of {len(message)} bytes; the limit is {limit_bytes}")
    if unsent_bytes >= UNSENT_LIMIT_BYTES:
        raise SendRefused(f"{unsent_bytes} bytes wait to be sent; the limit is {UNSENT_LIMIT_BYTES}: wait for on_sendable")
