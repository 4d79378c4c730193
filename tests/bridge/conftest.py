"""The gRPC front door and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from gateway.bridge.server import BridgeServer
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc


class Connected:
    """A listener, and once it is `connected` a stub of its service and the channel for other ones."""

    server: BridgeServer
    stub: Any = None
    channel: Any = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        await self.server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.server.port}") as channel:
            self.channel = channel
            self.stub = pb_grpc.BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
            yield
        await self.server.stop(0)
