"""What a response needs to know of its client's connection: has it gone, is it stuck, and how to cut it.

Owned by one response for the time of its `__call__`. One timer serves heartbeat and write time-out; nothing is
armed for each write. Our own server (server.py) puts a ClientLink into the scope's extensions, for what ASGI has
no word for: to abort, to hear of the loss without a task that waits for it, to write without an await. Under
another server a task awaits `receive()`, whose only consumer it is (a second one would race with it for the
disconnect), and a stuck response is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from starlette.types import Message, Receive, Scope, Send

LINK_EXTENSION = "snakepit.gateway.link"


class ClientLink(Protocol):
    """A client's connection as our own server's protocols offer it."""

    # Called once, synchronously, when the connection is lost; whoever answers sets it and takes it back.
    on_lost: Callable[[], None] | None

    @property
    def request_complete(self) -> bool:
        """Whether the whole request has arrived; only then does the loss show without anyone reading."""

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""

    def write_part(self, body: bytes) -> bool:
        """Write a part of a chunked response now; False, with nothing written, where that is not possible."""

    def cork(self) -> Callable[[], None]:
        """Hold back what the response sends, so that it leaves at once when the returned function is called."""


def client_link(scope: Scope) -> ClientLink | None:
    """Return the link in a scope; None under another server."""
    link: ClientLink | None = (scope.get("extensions") or {}).get(LINK_EXTENSION)
    return link


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
        self._link = client_link(scope)
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
        self._watcher: asyncio.Task[None] | None = None
        if self._link is not None and self._link.request_complete:
            self._link.on_lost = self._leave
        else:
            # Ours alone: it only awaits receive(), and ends with this block.
            self._watcher = self._loop.create_task(self._watch(), name="disconnect watcher")
        self._timer = self._loop.call_later(min(self._heartbeat_s, self._write_timeout_s), self._tick)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if self._watcher is not None:
            self._watcher.cancel()
        elif self._link is not None:
            self._link.on_lost = None
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

    @contextlib.contextmanager
    def corked(self) -> Iterator[None]:
        """Let everything that is sent in this block leave in one system call at its end, where the server can."""
        uncork = self._link.cork() if self._link is not None else None
        try:
            yield
        finally:
            if uncork is not None:
                uncork()

    def write(self, body: bytes) -> bool:
        """Write a part of the body that has begun, at once and without an await.

        False, with nothing written: the server has no such way, or the client is slow, or gone; use `send`. Only
        while no `send` is in progress.
        """
        if self._link is None or not self._link.write_part(body):
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
                self.cut()
                return
        else:
            due = self._written_at + self._heartbeat_s
            if now >= due:
                self.wake()
                due = now + self._heartbeat_s
        self._timer = self._loop.call_at(min(due, now + self._write_timeout_s), self._tick)

    def cut(self) -> None:
        """Close the connection at once, dropping what was not sent; to the answer it is as if the client had left."""
        self._leave()
        if self._link is not None:
            # The blocked send returns as soon as the connection is lost.
            self._link.abort()
        elif self._task is not None:
            self._cancelled_to_cut = self._task.cancel()
