"""The host's gRPC listener: one for all workers of Snakepit's, plaintext as Snakepit's own.

Owned by app.py: it listens before any pool begins, since a Snakepit worker serves only when its host has answered, and stops after
the last one. It is no front door: what comes in here is bound to the sessions of sessions.py.
"""

from __future__ import annotations

import grpc
import structlog

from gateway.host.service import HostService
from gateway.host.sessions import HostSession, HostSessions
from gateway.hosttools.toolbox import Toolbox
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.transport.listening import SERVER_OPTIONS
from gateway.transport.malformed import MalformedInterceptor

_log = structlog.get_logger("gateway.host")

# Hosts that mean every interface; a worker on this machine calls loopback.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "127.0.0.1", "": "127.0.0.1"}


class Host:
    """The listener and its sessions. `address` is `host:port`; port 0 picks a free one. `tools` None: it has none of its own."""

    def __init__(self, address: str = "127.0.0.1:0", tools: Toolbox | None = None) -> None:
        self._listens_at = address
        self._sessions = HostSessions()
        self._service = HostService(self._sessions, tools)
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """Where workers on this machine find it: their `--elixir-address`.

        Raises:
            RuntimeError: it does not listen.
        """
        if self._server is None:
            raise RuntimeError("the host does not listen")
        host = self._listens_at.rpartition(":")[0]
        return f"{_EVERYWHERE.get(host, host)}:{self._port}"

    async def start(self) -> None:
        """Listen; does nothing where it does already.

        Raises:
            OSError: the address can't be bound.
        """
        if self._server is not None:
            return
        server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=[MalformedInterceptor()])
        pb_grpc.add_BridgeServiceServicer_to_server(self._service, server)  # type: ignore[no-untyped-call]
        try:
            self._port = server.add_insecure_port(self._listens_at)
        except RuntimeError as exc:
            raise OSError(f"the host's address {self._listens_at} can't be bound: {exc}") from exc
        await server.start()
        self._server = server
        _log.info("host for Snakepit workers listens", address=self.address)

    async def stop(self) -> None:
        """Stop at once; idempotent."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(0)

    def admit(self, worker_id: str) -> HostSession:
        """Return a new session for a worker."""
        return self._sessions.open(worker_id)

    def dismiss(self, session: HostSession) -> None:
        """Forget a worker's session; idempotent."""
        self._sessions.close(session)
