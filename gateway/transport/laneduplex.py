"""A call on the lane with many request messages: client streaming and bidirectional methods.

A LaneCall in all else. What it is given to send waits in its Outgoing: for a connection, for the end of this turn of the
loop (so that many sends are one write), for the peer's windows. Its carrier is told of it once a turn.
"""

from __future__ import annotations

import logging
from typing import final

from gateway.errors import Code
from gateway.transport.base import CallStatus, DuplexSink, Metadata
from gateway.transport.lanecall import Carrier, LaneCall
from gateway.transport.outgoing import Outgoing
from gateway.transport.stream import StreamState

logger = logging.getLogger(__name__)


@final
class LaneDuplexCall(LaneCall):
    """base.DuplexCall."""

    __slots__ = ("_duplex_sink", "_queue")

    def __init__(
        self, carrier: Carrier, method: str, sink: DuplexSink, timeout_s: float | None, metadata: Metadata, message_limit_bytes: int
    ) -> None:
        super().__init__(carrier, method, b"", sink, timeout_s, metadata)
        self._duplex_sink = sink
        # The same object: a stream's `outgoing` is None for calls with one message.
        self._queue = self.outgoing = Outgoing(message_limit_bytes)

    def send(self, message: bytes) -> bool:
        # What has come with the last read may be the end already, though the sink hears it after the messages.
        if self._over or self.state is StreamState.ENDED:
            return False
        has_room = self._queue.add(message)
        self._announce()
        return has_room

    def end_sending(self) -> None:
        if not self._queue.ended:
            self._queue.ended = True
            if not self._over:
                self._announce()

    def deliver(self) -> None:
        super().deliver()
        queue = self._queue
        if queue.freed:
            queue.freed = False
            if not self._over and not queue.is_full:
                try:
                    self._duplex_sink.on_sendable()
                except Exception as exc:
                    logger.exception("a sink failed")
                    self.end(CallStatus(Code.INTERNAL, f"the reader failed: {exc}"))

    def _announce(self) -> None:
        if not self._queue.due:
            self._queue.due = True
            self.carrier.feed(self)
