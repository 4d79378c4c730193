"""A call over the C core with many request messages: client streaming and bidirectional methods.

A GrpcioCall in all else. A second task, a child of the same group as the reader, writes one message after the other, because
that is how grpc.aio writes: a write returns when the core has taken the message, within the peer's windows. What waits for it is
bounded here as in outgoing.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import grpc.aio

from gateway.errors import Code
from gateway.transport.base import MESSAGE_LIMIT_BYTES, UNSENT_HIGH_BYTES, UNSENT_LOW_BYTES, CallStatus, DuplexSink
from gateway.transport.grpciocall import GrpcioCall
from gateway.transport.messages import PREFIX_BYTES
from gateway.transport.outgoing import check_sendable

logger = logging.getLogger(__name__)


class GrpcioDuplexCall(GrpcioCall):
    """base.DuplexCall over one grpc.aio call."""

    __slots__ = ("_connecting", "_duplex_sink", "_ended", "_is_over", "_told_full", "_unsent_bytes", "_waiting", "_wake")

    def __init__(self, channel: grpc.aio.Channel, call: Any, sink: DuplexSink) -> None:
        super().__init__(channel, call, sink)
        self._duplex_sink = sink
        self._waiting: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._told_full = False
        self._ended = False
        self._is_over = False
        # The writer, for as long as it has nothing to write on.
        self._connecting: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        call.add_done_callback(lambda _: self._wake.set())

    def send(self, message: bytes) -> bool:
        if self._is_over or self._call.done():
            return False
        check_sendable(message, self._unsent_bytes, MESSAGE_LIMIT_BYTES, ended=self._ended)
        self._waiting.append(message)
        self._unsent_bytes += PREFIX_BYTES + len(message)
        self._wake.set()
        if self._unsent_bytes >= UNSENT_HIGH_BYTES:
            self._told_full = True
        return not self._told_full

    def end_sending(self) -> None:
        self._ended = True
        self._wake.set()

    def close(self, status: CallStatus) -> None:
        self._is_over = True
        self._waiting.clear()
        if self._connecting is not None:
            # Nothing tells it of a call that was cancelled before there was a connection.
            self._connecting.cancel()
        super().close(status)

    async def write(self) -> None:
        """Write what is to be sent until the call is over, or its half is closed. Never raises but for a cancelled task."""
        if self._is_over:
            return
        try:
            await self._write()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        except Exception as exc:
            # The call is over, which the reader tells.
            logger.debug("a write failed: %r", exc)

    async def _write(self) -> None:
        call, waiting = self._call, self._waiting
        self._connecting = asyncio.current_task()
        await call.wait_for_connection()
        self._connecting = None
        # Not call.write: where the call ends during a write, that puts an INTERNAL of its own in the place of the peer's status.
        write = call._cython_call.send_serialized_message
        while not call.done():
            while waiting:
                message = waiting.popleft()
                await write(message)
                self._sent(PREFIX_BYTES + len(message))
            if self._ended:
                await call.done_writing()
                return
            self._wake.clear()
            if not call.done():
                await self._wake.wait()

    def _sent(self, size_bytes: int) -> None:
        self._unsent_bytes -= size_bytes
        if self._told_full and self._unsent_bytes <= UNSENT_LOW_BYTES:
            self._told_full = False
            if not self._is_over:
                try:
                    self._duplex_sink.on_sendable()
                except Exception as exc:
                    logger.exception("a sink failed")
                    self.fail(CallStatus(Code.INTERNAL, f"the reader failed: {exc}"))
