"""Request messages that are all known from the beginning, a request's body, for a call that takes a stream of them.

What feed.py is for a socket: it gives the call as much as it has room for, and says the end behind the last one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gateway.transport.base import DuplexCall


class BodyFeed:
    """A MessageFeed (gateway/call.py) of these messages."""

    def __init__(self, messages: Iterable[bytes]) -> None:
        self._left = deque(messages)
        self._call: DuplexCall | None = None

    def attach(self, call: DuplexCall) -> None:
        """Give the call what it has room for."""
        self._call = call
        self.sendable()

    def sendable(self) -> None:
        """Go on; at the end say so, which leaves behind all that was sent."""
        call = self._call
        if call is None:
            return
        has_room = True
        while self._left and has_room:
            has_room = call.send(self._left.popleft())
        if not self._left:
            self._call = None
            call.end_sending()

    def close(self) -> None:
        """Let go of what is left."""
        self._call = None
        self._left.clear()
