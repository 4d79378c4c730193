"""What a response under ASGI needs to know of its client's connection: has it gone, and how to cut it.

Owned by one response for the time of its `__call__`. Our own server (server.py) puts a ClientLink into the scope's
extensions, for what ASGI has no word for: to abort, and to hear of the loss without a task that waits for it. Under
another server a task awaits `receive()`, whose only consumer it is (a second one would race with it for the
disconnect), and a stuck response is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from starlette.types import Receive, Scope

LINK_EXTENSION = "snakepit.gateway.link"


class ClientLink(Protocol):
    """A client's connection as our own server's protocols offer it."""

    # Called once, synchronously, when the connection is lost; whoever answers sets it and takes it back.
    on_lost: Callable[[], None] | None
    # Whether that has happened: who begins to answer only then is not called.
    lost: bool

    @property
    def request_complete(self) -> bool:
        """Whether the whole request has arrived; only then does the loss show without anyone reading."""

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""


def client_link(scope: Scope) -> ClientLink | None:
    """Return the link in a scope; None under another server."""
    link: ClientLink | None = (scope.get("extensions") or {}).get(LINK_EXTENSION)
    return link


class Connection:
    """A client's connection while it is being answered; an async context manager around the answer.

    `on_gone` is called once, synchronously, when the client has left or was cut; on entering, where it has left already.
    """

    def __init__(self, scope: Scope, receive: Receive, *, on_gone: Callable[[], None]) -> None:
        self._receive = receive
        self._link = client_link(scope)
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self._cancelled_to_cut = False
        # True once the client has left, or was cut since it made no progress.
        self.gone = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        if self._link is not None and self._link.lost:
            # While it was being found out what to answer.
            self._leave()
        elif self._link is not None and self._link.request_complete:
            self._link.on_lost = self._leave
        else:
            # Ours alone: it only awaits receive(), and ends with this block.
            self._watcher = self._loop.create_task(self._watch(), name="disconnect watcher")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if self._watcher is not None:
            self._watcher.cancel()
        elif self._link is not None:
            self._link.on_lost = None
        # Of who has us, mostly: the two would be a cycle, which only the collector undoes.
        self._on_gone = _nothing
        if self._cancelled_to_cut and isinstance(error, asyncio.CancelledError) and self._task is not None:
            return self._task.uncancel() == 0
        return False

    def wake(self) -> None:
        """End the current `wait`, or the next one."""
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for `wake`, or for the client's leaving. Returns at once where there was a `wake` since the last one."""
        if not self._woken and not self.gone:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._woken = False

    def cut(self) -> None:
        """Close the connection at once; a `send` in progress ends with that."""
        self._leave()
        if self._link is not None:
            # The blocked send returns as soon as the connection is lost.
            self._link.abort()
        elif self._task is not None and self._task is not asyncio.current_task():
            self._cancelled_to_cut = self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self.gone:
            self.gone = True
            self._on_gone()
            self.wake()


def _nothing() -> None:
    """Stand in for the `on_gone` of an answer that is over."""
