"""One request's connection as a streamed response uses it: written without an await, heard of by callbacks.

`Exchange` is the seam between a response, which is a state machine (response.py), and the server: direct.py
implements it on our own server's connection, `AsgiExchange` here on any ASGI server's `send`. Invariant: a response
hears either `on_lost`, or nothing more once it has called `finish`, `hand_over` or `abort`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.endpoints.connection import Connection

# How long a client that is cut has to take its last words.
FAREWELL_TIMEOUT_S = 1.0

Headers = Sequence[tuple[bytes, bytes]]


class Exchange:
    """A request to be answered. Whoever answers sets the callbacks, which come from the event loop.

    A base class and no Protocol: compiled, its methods are called through a table instead of being looked up by name.
    """

    __slots__ = ("on_lost", "on_writable")

    def __init__(self) -> None:
        # The client has left; nothing can be written any more.
        self.on_lost: Callable[[], None] = _nothing
        # `writable` is True again.
        self.on_writable: Callable[[], None] = _nothing

    def let_go(self) -> None:
        """Forget who answers: nothing more is to be told, and an exchange may be kept for longer than its response."""
        self.on_lost = self.on_writable = _nothing

    @property
    def writable(self) -> bool:
        """Whether the client keeps up. What is written all the same is kept, so write one part at most while False."""
        raise NotImplementedError

    def begin(self, constant: Headers, headers: Headers, body: bytes) -> None:
        """Send the status 200, the headers and the first part of the body.

        `constant` are the headers that stand first and that many responses have in common, as the same object.
        """
        raise NotImplementedError

    def write(self, body: bytes) -> None:
        """Send a further part of the body, which is not empty."""
        raise NotImplementedError

    def finish(self, body: bytes) -> None:
        """Send the last part; the exchange is over."""
        raise NotImplementedError

    def hand_over(self, response: Response) -> None:
        """Have the request answered by `response` instead; nothing was sent yet. The exchange is over."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close the connection at once, dropping what was not sent; `on_lost` is not called."""
        raise NotImplementedError

    def cut(self, farewell: bytes) -> None:
        """Send a last part where the client keeps up, then close the connection without completing the response."""


class StreamedResponse(Protocol):
    """Who answers on an exchange."""

    def answer(self, exchange: Exchange) -> None:
        """Begin to answer, and go on from callbacks."""

    def close(self) -> None:
        """Stop answering; idempotent."""


@final
class AsgiExchange(Exchange):
    """An Exchange over ASGI's `send`: what is written waits here, one part at a time, for the request's task."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__()
        self._scope = scope
        self._receive = receive
        self._send = send
        # At most the head, and one part more than `writable` allowed.
        self._unsent: deque[Message] = deque()
        self._sending = False
        self._instead: Response | None = None
        self._over = False
        # What is unsent is the last that the client hears before it is cut.
        self._cuts = False
        self._connection = Connection(scope, receive, on_gone=self._lost)

    @property
    def writable(self) -> bool:
        return not self._unsent and not self._sending

    def begin(self, constant: Headers, headers: Headers, body: bytes) -> None:
        self._unsent.append({"type": "http.response.start", "status": 200, "headers": [*constant, *headers]})
        self.write(body)

    def write(self, body: bytes) -> None:
        self._put(body, more_body=True)

    def finish(self, body: bytes) -> None:
        self._over = True
        self._put(body, more_body=False)

    def hand_over(self, response: Response) -> None:
        self._over = True
        self._instead = response
        self._connection.wake()

    def cut(self, farewell: bytes) -> None:
        if self.writable:
            self._over = self._cuts = True
            self._put(farewell, more_body=True)
        else:
            self.abort()

    def abort(self) -> None:
        self._over = True
        self._unsent.clear()
        self._connection.cut()
        self._connection.wake()

    async def carry(self, response: StreamedResponse) -> None:
        """Return when `response` has been sent, or the client has gone; the response is closed then, whatever happens."""
        connection = self._connection
        try:
            async with connection:
                if not connection.gone:
                    response.answer(self)
                while not connection.gone:
                    if self._cuts:
                        await self._say_farewell()
                    elif self._unsent:
                        await self._send_unsent()
                    elif self._instead is not None:
                        await self._instead(self._scope, self._receive, self._send)
                        return
                    elif self._over:
                        return
                    else:
                        await connection.wait()
        finally:
            response.close()

    async def _send_unsent(self) -> None:
        self._sending = True
        while self._unsent:
            await self._send(self._unsent.popleft())
        self._sending = False
        if not self._over and not self._connection.gone:
            self.on_writable()

    async def _say_farewell(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_TIMEOUT_S):
                await self._send_unsent()
        self._connection.cut()

    def _put(self, body: bytes, *, more_body: bool) -> None:
        self._unsent.append({"type": "http.response.body", "body": body, "more_body": more_body})
        self._connection.wake()

    def _lost(self) -> None:
        if not self._over:
            self._over = True
            self.on_lost()


def _nothing() -> None:
    """Stand in for a callback that nobody has set."""
