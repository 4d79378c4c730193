"""The gRPC listener: BridgeService, health (grpc.health.v1) and reflection on one port."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from gateway.bridge.service import BridgeService
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.transport.listening import SERVER_OPTIONS
from gateway.transport.malformed import MalformedInterceptor

_log = structlog.get_logger("gateway.bridge")

SERVICE = pb.DESCRIPTOR.services_by_name["BridgeService"].full_name


class BridgeServer:
    """The listener. `address` is `host:port` or `unix:/path`; port 0 picks a free one, told by `port` after `start`.

    `credentials` None: no TLS. `interceptors` see each call first.
    """

    def __init__(
        self,
        service: BridgeService,
        address: str,
        credentials: grpc.ServerCredentials | None = None,
        *,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=[*interceptors, MalformedInterceptor()])
        self._health = HealthServicer()
        pb_grpc.add_BridgeServiceServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), self._server
        )
        self.port = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address can't be bound.
        """
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(self._address)
            else:
                self.port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as exc:
            raise OSError(f"the gRPC address {self._address} can't be bound: {exc}") from exc
        await self._server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        _log.info("gRPC listens", address=self._address, port=self.port, tls=self._credentials is not None)

    async def drain(self) -> None:
        """Answer health checks with NOT_SERVING; calls go on."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, say GOAWAY to connections, and cancel the calls left after `grace_s`; a second time may shorten that."""
        await self._server.stop(grace_s)
