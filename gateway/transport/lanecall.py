"""A call on the lane, from `open_stream` to its one `on_close`.

Created by lane.py; carried first by the channel (waiting for a connection) and then by a link. Whoever ends it
first wins: the peer's status, the deadline's timer, or `cancel`.

| state   | carrier | cancel, deadline                  | the worker's answer               |
|---------|---------|-----------------------------------|-----------------------------------|
| waiting | channel | off the queue, then `on_close`    |                                   |
| open    | link    | RST_STREAM at once, then `on_close` | `on_messages`, at last `on_close` |
| over    | any     | nothing                           | dropped                           |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from gateway import timers
from gateway.errors import Code
from gateway.transport.base import CallStatus, Metadata, StreamSink
from gateway.transport.stream import Stream

logger = logging.getLogger(__name__)


class Carrier(Protocol):
    """Who holds a call that isn't over."""

    def drop(self, call: LaneCall) -> None:
        """Let go of a call that has ended here, and tell the peer if it knows of it."""

    def credit(self, call: LaneCall) -> None:
        """Note that a paused call reads again."""

    def feed(self, call: LaneCall) -> None:
        """Note that a call's Outgoing has something to send."""


class LaneCall(Stream):
    """base.StreamCall; also the stream that the connection keeps for it, so nothing is looked up on delivery."""

    __slots__ = ("_deadline_at", "_over", "_request", "_sink", "_timer", "_timers", "carrier", "metadata", "method")

    def __init__(
        self, carrier: Carrier, method: str, request: bytes, sink: StreamSink, timeout_s: float | None, metadata: Metadata
    ) -> None:
        super().__init__()
        self.carrier = carrier
        self.method = method
        self.metadata = metadata
        self._request = request
        self._sink = sink
        self._over = False
        self._timers = clock = timers.running()
        self._timer: timers.Timer | None = None
        self._deadline_at: float | None = None
        if timeout_s is not None:
            self._deadline_at = clock.time() + timeout_s
            self._timer = clock.call_at(self._deadline_at, self._expire)

    # -- base.StreamCall -----------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            if not self._over:
                self.carrier.credit(self)

    def cancel(self) -> None:
        self.end(CallStatus(Code.CANCELLED, "cancelled"))

    def headers(self) -> Mapping[str, str]:
        return self.answer_headers

    # -- for the channel and the link ----------------------------------------------------------------------

    def take_request(self) -> bytes:
        """Return the request, once: it isn't kept for the call's life."""
        request, self._request = self._request, b""
        return request

    def remaining_s(self) -> float | None:
        """Return the seconds left; None for a call without a deadline."""
        return None if self._deadline_at is None else max(0.0, self._deadline_at - self._timers.time())

    def end(self, status: CallStatus) -> None:
        """End the call from this side; its sink hears in the loop's next turn. Does nothing when it is over."""
        if not self._over:
            self._settle()
            self.carrier.drop(self)
            self._timers.loop.call_soon(self._sink.on_close, status)

    def deliver(self) -> None:
        """Pass on what has arrived. Never raises: a sink that does loses its call, not the connection."""
        messages, self.messages = self.messages, None
        if messages and not self._over:
            try:
                self._sink.on_messages(messages)
            except Exception as exc:
                logger.exception("a sink failed")
                self.end(CallStatus(Code.INTERNAL, f"the reader failed: {exc}"))
        if self.status is not None and not self._over:
            self._settle()
            try:
                self._sink.on_close(self._judged(self.status))
            except Exception:
                logger.exception("a sink failed")

    def _expire(self) -> None:
        self.end(CallStatus(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _settle(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judged(self, status: CallStatus) -> CallStatus:
        """Read a worker's reset past the deadline for what it is: its own clock was a moment ahead of ours."""
        if status.code is Code.CANCELLED and self.remaining_s() == 0.0:
            return CallStatus(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return status
