"""A client of the subprotocol, on an independent WebSocket implementation."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from tests.e2e.harness import PATIENCE_S, Served

SUBPROTOCOL = websockets.Subprotocol("snakepit.gateway.v1")


class SocketClient:
    """One socket, initialised. It keeps what it heard for each id."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []

    async def say(self, kind: str, **members: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **members}))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
        self.heard.append(frame)
        return frame

    async def hear_until(self, *kinds: str) -> dict[str, Any]:
        """Hear until a frame of one of these types comes; return it."""
        while (frame := await self.hear())["type"] not in kinds:
            pass
        return frame

    def chunks(self, name: str) -> list[tuple[str, Any]]:
        """The event ids and payloads that came for an id."""
        return [(frame["eid"], frame["payload"]) for frame in self.heard if frame["type"] == "next" and frame["id"] == name]


@contextlib.asynccontextmanager
async def joined(gateway: Served) -> AsyncIterator[SocketClient]:
    url = f"ws://127.0.0.1:{gateway.port}/v1/ws"
    async with websockets.connect(url, subprotocols=[SUBPROTOCOL], max_size=None, proxy=None) as socket:
        client = SocketClient(socket)
        await client.say("connection_init")
        assert (await client.hear())["type"] == "connection_ack"
        yield client
