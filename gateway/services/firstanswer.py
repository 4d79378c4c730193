"""The first message that a call answers, for discovery.py: a module of its own since it is compiled, as all sinks of a channel are."""

from __future__ import annotations

import asyncio
from typing import final

from gateway.transport.base import CallStatus, StreamSink


@final
class FirstAnswer(StreamSink):
    """Nothing that comes after the first message is waited for. `came`: None, there is one; else how the call ended without one."""

    __slots__ = ("came", "messages")

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.came: asyncio.Future[CallStatus | None] = asyncio.get_running_loop().create_future()

    def on_messages(self, messages: list[bytes]) -> None:
        if not self.came.done():
            self.messages = messages[:1]
            self.came.set_result(None)

    def on_close(self, status: CallStatus) -> None:
        if not self.came.done():
            self.came.set_result(status)
