"""What a response needs to know of its client's connection: has it gone, is it stuck, and how to cut it.

Owned by one response for the time of its `__call__`. It is the only consumer of `receive()`: a second one would
race with it for the disconnect. One timer serves heartbeat and write time-out; nothing is armed for each write.
ASGI has no way to abort a connection, so our uvicorn protocol offers one in the scope's extensions (server.py);
under another server a stuck response is cancelled instead. It also offers a way to write that neither awaits nor
passes the middleware's wrappers, for what a run pushes while its response waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from starlette.types import Message, Receive, Scope, Send

ABORT_EXTENSION = "snakepit.gateway.abort"
WRITE_EXTENSION = "snakepit.gateway.write"


class Connection:
    """A client's connection while it is being answered; an async context manager around the answer.

    `on_gone` is called once, synchronously, when the client has left or was cut. `write_timeout_s` is the longest
    that one `send` may take before the connection is cut; `heartbeat_s` the silence after which `heartbeat_due` is
    True and a `wait` returns.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, write_timeout_s: float, heartbeat_s: float, on_gone: Callable[[], None]
    ) -> None:
        self._receive = receive
        self._send = send
        extensions = scope.get("extensions") or {}
        self._abort: Callable[[], None] | None = extensions.get(ABORT_EXTENSION)
        self._write: Callable[[bytes], bool] | None = extensions.get(WRITE_EXTENSION)
        self._write_timeout_s = write_timeout_s
        self._heartbeat_s = heartbeat_s
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        # When the write in progress began, and when the last one was done, in the loop's time.
        self._writing_since: float | None = None
        self._written_at = self._loop.time()
        self._cancelled_to_cut = False
        # True once the client has left, or was cut since it made no progress.
        self.gone = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        # Ours alone: it only awaits receive(), and ends with this block.
        self._watcher = self._loop.create_task(self._watch(), name="disconnect watcher")
        self._timer = self._loop.call_later(min(self._heartbeat_s, self._write_timeout_s), self._tick)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._watcher.cancel()
        self._timer.cancel()
        if self._cancelled_to_cut and isinstance(error, asyncio.CancelledError) and self._task is not None:
            return self._task.uncancel() == 0
        return False

    @property
    def heartbeat_due(self) -> bool:
        """True after `heartbeat_s` without a write."""
        return self._loop.time() >= self._written_at + self._heartbeat_s

    async def send(self, message: Message) -> None:
        """Send one message. Returns, having sent nothing, when the client is gone."""
        self._writing_since = self._loop.time()
        await self._send(message)
        self._writing_since = None
        self._written_at = self._loop.time()

    def write(self, body: bytes) -> bool:
        """Write a part of the body that has begun, at once and without an await.

        False, with nothing written: the server has no such way, or the client is slow, or gone; use `send`. Only
        while no `send` is in progress.
        """
        if self._write is None or not self._write(body):
            return False
        self._written_at = self._loop.time()
        return True

    def wake(self) -> None:
        """End the current `wait`, if there is one."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for `wake`, for the client's leaving, or until a heartbeat is due."""
        if self.gone:
            return
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            self._on_gone()
            self.wake()

    def _tick(self) -> None:
        """Cut the connection where a write takes too long, wake the response where a heartbeat is due."""
        now = self._loop.time()
        if self._writing_since is not None:
            due = self._writing_since + self._write_timeout_s
            if now >= due:
                self._cut()
                return
        else:
            due = self._written_at + self._heartbeat_s
            if now >= due:
                self.wake()
                due = now + self._heartbeat_s
        self._timer = self._loop.call_at(min(due, now + self._write_timeout_s), self._tick)

    def _cut(self) -> None:
        self._leave()
        if self._abort is not None:
            # The blocked send returns as soon as the connection is lost.
            self._abort()
        elif self._task is not None:
            self._cancelled_to_cut = self._task.cancel()
