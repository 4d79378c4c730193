"""Serves the host tools to the gateway's own workers, on a Unix socket that only its user may open.

A worker is told the address (`--host-tools-address`) and calls when a tool of its asks. There is no session and nothing to keep
alive, unlike with a Snakepit host: GetExposedElixirTools and ExecuteElixirTool are all that is served.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import grpc
import structlog

from gateway.hosttools.toolbox import Toolbox
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.transport.listening import SERVER_OPTIONS

_log = structlog.get_logger("gateway.hosttools")

# Leaves room for the socket's name in the 107 bytes that unix(7) gives it.
_FOLDER_LIMIT = 80


class HostToolsListener:
    """The listener. `address` is known from the start, `unix:/path`; there is nothing behind it before `start`."""

    def __init__(self, toolbox: Toolbox) -> None:
        """`toolbox` is what is served, here and elsewhere."""
        temporary = Path(tempfile.gettempdir())
        self._folder = (temporary if len(str(temporary)) < _FOLDER_LIMIT - 20 else Path("/tmp")) / f"gw-host-{secrets.token_hex(6)}"
        self.toolbox = toolbox
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """What workers are told."""
        return f"unix:{self._folder / 'tools.sock'}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the socket can't be made.
        """
        self._folder.mkdir(mode=0o700)
        server = grpc.aio.server(options=SERVER_OPTIONS)
        pb_grpc.add_BridgeServiceServicer_to_server(_Service(self.toolbox), server)  # type: ignore[no-untyped-call]
        try:
            server.add_insecure_port(self.address)
        except RuntimeError as exc:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise OSError(f"host tools: {self.address} can't be bound: {exc}") from exc
        await server.start()
        self._server = server
        _log.info("host tools", tools=[spec.name for spec in self.toolbox.specs()])

    async def stop(self) -> None:
        """Stop at once, and leave nothing behind; idempotent."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(0)
            await self.toolbox.aclose()
            shutil.rmtree(self._folder, ignore_errors=True)


class _Service(pb_grpc.BridgeServiceServicer):
    """What is served of the service; the rest stays UNIMPLEMENTED."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    async def GetExposedElixirTools(
        self, request: pb.GetExposedElixirToolsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetExposedElixirToolsResponse:
        return pb.GetExposedElixirToolsResponse(tools=self._toolbox.specs())

    async def ExecuteElixirTool(
        self, request: pb.ExecuteElixirToolRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ExecuteElixirToolResponse:
        return await self._toolbox.execute(request.session_id, request.tool_name, request.parameters)
