"""The open sockets of an app: how many there may be, and how they leave when the gateway drains.

Owned by the composition root, which calls `go_away` when the drain begins and `close` when the runs have ended;
each socket is here for the time of its `serve` (websocket.py). A socket that is told to go away takes no new runs
and closes itself, 1012, when its last one has ended. Source: docs of the protocol, section 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Protocol

from gateway.endpoints.duplex import GOING_AWAY, Closing

# What a drain leaves the sockets, over its deadline, to say how their runs ended.
LAST_WORDS_S = 1.0


class OpenSocket(Protocol):
    """A connection that is being served."""

    async def serve(self) -> None:
        """Accept it and serve it until one side ends it; every run on it loses its reader then."""

    def go_away(self, reconnect_in_ms: int) -> None:
        """Tell the client to connect again after that time, take no new runs, close when those that are here have ended."""

    def end(self) -> None:
        """Close now, as going away, whatever is left to send; idempotent."""


class Sockets:
    """The sockets that are open now, at most `limit`; when there are so many, new ones are closed 1013 at once.

    `reconnect_ms` is about what clients are told to wait before they connect again: each gets a time of its own, from half
    to one and a half of it, so that they don't come to the next gateway all at once.
    """

    def __init__(self, *, limit: int = 10_000, reconnect_ms: int = 2000) -> None:
        self._limit = limit
        self._reconnect_ms = reconnect_ms
        self._open: set[OpenSocket] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def refusal(self) -> Closing | None:
        """Return why a new socket can't be served now, or None."""
        if self._draining:
            return GOING_AWAY
        if len(self._open) >= self._limit:
            return Closing(1013, f"{self._limit} sockets are open, the limit; try again later")
        return None

    async def serve(self, socket: OpenSocket) -> None:
        """Serve a socket that was not refused."""
        self._open.add(socket)
        self._empty.clear()
        try:
            await socket.serve()
        finally:
            self._open.discard(socket)
            if not self._open:
                self._empty.set()

    def go_away(self) -> None:
        """Tell every socket to go away, and refuse new ones from now on; idempotent."""
        if not self._draining:
            self._draining = True
            for socket in list(self._open):
                socket.go_away(self._jittered_ms())

    async def close(self, timeout_s: float) -> None:
        """Wait until the sockets have closed themselves, and end those left after `timeout_s` and LAST_WORDS_S.

        One whose client doesn't even take its close frame is not waited for: the server cuts it.
        """
        await self._emptied(timeout_s + LAST_WORDS_S)
        for socket in list(self._open):
            socket.end()
        await self._emptied(LAST_WORDS_S)

    async def _emptied(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()

    def _jittered_ms(self) -> int:
        return random.randint(self._reconnect_ms // 2, self._reconnect_ms * 3 // 2)
