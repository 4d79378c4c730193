"""A WebSocket while it is served: a task that listens, a task that writes, and the close frame after both.

Base of the two kinds of socket (subprotocol.py, plainsocket.py). The two tasks are children of one group and end
together: when the client leaves, when it breaks the protocol, when nothing is left to send, or when a drain ends it.
The close frame is sent when the writer has stopped, so that nothing can follow it.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import NamedTuple

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.codec.websocket import BadFrame
from gateway.endpoints.outlet import Outlet, SocketRun


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """`runs_limit`: runs at once on one socket. `init_timeout_s`: how long the first frame may take.

    `lag_bytes`: how far a reader that joins a run may be behind before its overflow policy applies.
    """

    runs_limit: int = 100
    init_timeout_s: float = 5.0
    write_timeout_s: float = 30.0
    heartbeat_s: float = 10.0
    lag_bytes: int = 256 * 1024
    debug: bool = False


class Closing(NamedTuple):
    """A close frame."""

    code: int
    reason: str = ""


GOING_AWAY = Closing(1012, "the gateway is shutting down; connect again")
AUTH_EXPIRED = Closing(4401, "the credential has expired; connect again with a new one")


class Duplex:
    """One connection, from its acceptance to its close. An OpenSocket."""

    def __init__(self, websocket: WebSocket, settings: SocketSettings, *, subprotocol: str | None = None) -> None:
        self._websocket = websocket
        self._subprotocol = subprotocol
        self._settings = settings
        self._outlet = Outlet(websocket, write_timeout_s=settings.write_timeout_s)
        # What is said when both tasks have stopped; None while only the client's leaving would stop them.
        self._closing: Closing | None = None
        self._listener: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        try:
            await self._websocket.accept(self._subprotocol)
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(), name="websocket writer")
                self._listener = listener = tasks.create_task(self._listen(), name="websocket reader")
                await asyncio.wait((writer, listener), return_when=asyncio.FIRST_COMPLETED)
                writer.cancel()
                listener.cancel()
            if self._closing is not None:
                await self._outlet.close(*self._closing)
        except WebSocketDisconnect:
            # The client left before it was accepted.
            pass
        finally:
            # A task that was cancelled has the frames that it was cancelled in, and so this.
            self._listener = None
            self._release()

    def end(self) -> None:
        self._closing = self._closing or GOING_AWAY
        if self._listener is not None:
            self._listener.cancel()

    def go_away(self, reconnect_in_ms: int) -> None:
        raise NotImplementedError

    async def _listen(self) -> None:
        """Take what the client says until it leaves, or breaks the protocol."""
        raise NotImplementedError

    async def _receive_text(self) -> str:
        """Return the client's next frame.

        Raises:
            WebSocketDisconnect: it has left.
            BadFrame: the frame is binary.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        text: str | None = message.get("text")
        if text is None:
            raise BadFrame("frames are text")
        return text

    def _finished(self, entry: SocketRun) -> None:
        """The run's end was sent, or its reader was cut."""
        raise NotImplementedError

    def _release(self) -> None:
        """Leave every run that is left."""
        raise NotImplementedError

    async def _write(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await self._outlet.run(self._finished)
