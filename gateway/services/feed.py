"""The request messages of one call, from who reads them off a socket to the call that sends them.

Made with the call, before anybody knows when it will have a place on its server: what comes until then is kept here, as little as
the call itself would keep. Whoever sends stops when it is told to, and is told when to go on.

| state   | begins with                                | `send`                    |
|---------|--------------------------------------------|---------------------------|
| waiting | being made                                 | kept                      |
| open    | `attach`: the run's call has begun         | given to the call         |
| closed  | `close`: the call is over, or never began  | dropped                   |
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.errors import GatewayError
from gateway.transport.base import MESSAGE_LIMIT_BYTES, UNSENT_HIGH_BYTES, DuplexCall
from gateway.transport.messages import PREFIX_BYTES


class Feed:
    """See the module. `ended`: there are no more messages."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        """`on_room` is called when there is room after a `send` that returned False, or nothing is taken any more."""
        self.ended = False
        self._on_room = on_room
        self._call: DuplexCall | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._closed = False

    def send(self, message: bytes) -> bool:
        """Pass a message on; return whether there is room for another.

        Raises:
            GatewayError: `chunk-too-large`: it is over what gRPC carries.
        """
        if self._closed:
            return True
        if len(message) > MESSAGE_LIMIT_BYTES:
            raise GatewayError("chunk-too-large", f"A message of {len(message)} bytes; the limit is {MESSAGE_LIMIT_BYTES}")
        if self._call is not None:
            return self._call.send(message)
        self._kept.append(message)
        self._kept_bytes += PREFIX_BYTES + len(message)
        return self._kept_bytes < UNSENT_HIGH_BYTES

    def end(self) -> None:
        """Say that there are no more: the half-close."""
        self.ended = True
        if self._call is not None:
            self._call.end_sending()

    def attach(self, call: DuplexCall) -> None:
        """Give the call what there is, and all that comes."""
        self._call = call
        kept, self._kept = self._kept, []
        has_room = True
        for message in kept:
            has_room = call.send(message)
        if self.ended:
            call.end_sending()
        if has_room:
            self._on_room()

    def sendable(self) -> None:
        """The call has room again."""
        self._on_room()

    def close(self) -> None:
        """Take nothing more: the call is over."""
        self._closed = True
        self._call = None
        self._kept = []
        on_room, self._on_room = self._on_room, _nothing
        on_room()


def _nothing() -> None:
    """Nobody waits any more: what would be told holds this feed, and would be left to the garbage collector."""
