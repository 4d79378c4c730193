"""A call with one answer, on top of either transport's `open_stream`.

The waiting task is the only owner: when it is cancelled, so is the call.
"""

from __future__ import annotations

import asyncio

from gateway.errors import Code
from gateway.transport.base import CallFailed, CallStatus, Channel, Metadata, StreamSink


class _Answer(StreamSink):
    """A sink that keeps the one message and resolves its future when the call is over."""

    __slots__ = ("_messages", "result")

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self.result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_messages(self, messages: list[bytes]) -> None:
        # Two are enough to know that the answer is wrong: a peer that streams here can't fill the memory.
        self._messages += messages[: 2 - len(self._messages)]

    def on_close(self, status: CallStatus) -> None:
        if self.result.done():  # the waiting task was cancelled
            return
        if status.code is not Code.OK:
            self.result.set_exception(CallFailed(status))
        elif len(self._messages) != 1:
            said = "more than one message" if self._messages else "no message"
            self.result.set_exception(CallFailed(CallStatus(Code.INTERNAL, f"the worker answered a unary call with {said}")))
        else:
            self.result.set_result(self._messages[0])


async def call_unary(channel: Channel, method: str, request: bytes, *, timeout_s: float, metadata: Metadata) -> bytes:
    """Do what base.Channel.unary says."""
    answer = _Answer()
    call = channel.open_stream(method, request, answer, timeout_s=timeout_s, metadata=metadata)
    try:
        return await answer.result
    finally:
        call.cancel()
