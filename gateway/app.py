"""The composition root: settings become objects, objects become a FastAPI app; nothing else knows them all.

The lifespan owns the root task group: transports, pools and the gRPC listener are its children. On the way out
runs are drained first, then the gRPC listener, the pools and the transports, each with a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI

from gateway import __version__
from gateway.access import Access
from gateway.bridge.authentication import CallerInterceptor
from gateway.bridge.server import BridgeServer
from gateway.bridge.service import BridgeService
from gateway.certificates import CertificatesNotUsable
from gateway.configured import (
    all_tls,
    certificates,
    connection_limits,
    exposure,
    hub_limits,
    quota_limits,
    shared_runs,
    tracing,
)
from gateway.drain import Drain
from gateway.endpoints import (
    admin,
    annotated,
    asyncapi,
    background,
    call,
    console,
    docs,
    health,
    itemschemas,
    metrics,
    openapi,
    probe,
    problem,
    rpc,
    rpccatalogue,
    runs,
    sessions,
    signin,
    stream,
    tickets,
    tools,
    websocket,
)
from gateway.endpoints.duplex import SocketSettings
from gateway.endpoints.endpoint import RPC
from gateway.endpoints.express import ExpressApp
from gateway.endpoints.gauges import Gauges
from gateway.endpoints.options import OptionLimits
from gateway.endpoints.requests import CallReader, RequestLimits
from gateway.endpoints.response import StreamTiming
from gateway.endpoints.rpcrequests import RpcReader
from gateway.endpoints.sockets import Sockets
from gateway.endpoints.stream import RunResponses, StreamSettings
from gateway.endpoints.visit import AccessLog
from gateway.hosting import Hosting
from gateway.pools import Pools
from gateway.runs.hub import Hub
from gateway.runs.journal import RunLines
from gateway.runs.quotas import Quotas
from gateway.services.options import ServiceOptions
from gateway.services.pool import ServicePool
from gateway.sessions import Sessions
from gateway.settings import (
    LimitSettings,
    Settings,
    SettingsError,
)
from gateway.telemetry import logs
from gateway.telemetry.metrics import Metrics, ResponseTotals, RunTotals
from gateway.telemetry.tally import ResponseTally, RunTally
from gateway.transport import Transport, open_transport
from gateway.transport.base import Channel
from gateway.transport.tls import TlsOptions
from gateway.workers.catalog import Catalog, Tool
from gateway.workers.options import PoolOptions
from gateway.workers.pool import Pool

_log = structlog.get_logger("gateway")


class Gateway:
    """Everything that serves, made from settings. `run` owns it all."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._transport: Transport | None = None
        self.hosting = Hosting(settings)
        self.pool_options = self.hosting.pools(settings)
        # How the workers of each pool are spoken to, by its name.
        self._worker_tls = all_tls(settings)
        self._pools = Pools(self.pool_options, self._make_pool)
        self.pools: Mapping[str, Pool] = self._pools.serving
        self.catalog = Catalog(self.pools.values())
        server = settings.server
        self.tally = RunTally() if server.metrics else None
        self.tracing = tracing(settings.tracing)
        journal = RunLines(every=settings.log.runs == "all")
        self.hub = Hub(self.catalog, self.pools, hub_limits(settings), self.tally, tracer=self.tracing, journal=journal)
        self._limit_callers(settings.limits)
        self.shared = shared_runs(settings, self.hub)
        self.hub.others = self.shared
        self.hub.memory.limit_bytes = server.memory_limit_bytes
        if self.shared is not None:
            shared_log = self.shared.log
            self.hub.memory.sources["shared_log_queue"] = lambda: shared_log.queued_bytes
        self.sessions = Sessions(ttl_s=settings.sessions.ttl_s, limit=settings.sessions.limit, on_end=self._session_ended)
        self.sockets = Sockets(limit=server.sockets_limit, reconnect_ms=server.reconnect_ms)
        self.bridge: BridgeServer | None = None
        # None: there is no authentication, everybody is ANONYMOUS.
        self.access = Access(settings.auth, server.allowed_origins) if settings.auth.is_on else None
        self._drain = Drain(self)
        # What takes a changed setting over at once, by the name of the setting or of its section; must not raise. The drain reads
        # its times when it begins.
        self.reloads: dict[str, Callable[[Settings], None]] = {
            "limits": lambda settings: self._limit_callers(settings.limits),
            "log.level": lambda settings: logs.set_level(settings.log.level),
            "server.memory_limit_bytes": lambda settings: self.hub.memory.change(settings.server.memory_limit_bytes),
            "server.drain_delay_s": _nothing,
            "server.drain_timeout_s": _nothing,
        }
        if self.hosting.tools is not None:
            # Whatever the setting says, their code may be another: see Hosting.prepare.
            self.reloads["host_tools"] = _nothing
        if self.access is not None:
            self.reloads |= {"auth.keys": _nothing, "auth.keys_file": _nothing}
        # What else runs in the root group, for as long as the gateway serves.
        self.attendants: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.certificates, self.grpc_certificates = certificates(server)
        self.connection_limits = connection_limits(server)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve: pools start, the gRPC front door listens, and at the end all is drained and stopped."""
        server = self.settings.server
        async with self.hosting.run(self.pool_options), asyncio.TaskGroup() as tasks:
            self._transport = open_transport(self.settings.transport, tasks)
            keepers = [tasks.create_task(self._pools.run(), name="pools")]
            self.hub.memory.start()
            keepers += [tasks.create_task(attendant()) for attendant in self.attendants]
            if self.shared is not None:
                keepers.append(tasks.create_task(self.shared.run(), name="shared runs"))
                await self.shared.greet()
            if self.access is not None:
                keepers.append(tasks.create_task(self.access.run(), name="access"))
            try:
                if server.grpc_address:
                    limit_s = server.timeout_limit_s
                    service = BridgeService(self.hub, self.sessions, timeout_limit_s=limit_s, host_tools=self.hosting.tools)
                    credentials = None if self.grpc_certificates is None else self.grpc_certificates.grpc_credentials()
                    interceptors = [] if self.access is None else [CallerInterceptor(self.access.authenticator)]
                    self.bridge = BridgeServer(service, server.grpc_address, credentials, interceptors=interceptors)
                    await self._listen(self.bridge)
                await self._pools.started(server.start_wait_s)
                yield
                await self._drain.runs()
                await self._drain.workers()
                if self.shared is not None:
                    await self.shared.leave()
            finally:
                self.hub.memory.stop()
                if self.bridge is not None:
                    await self.bridge.stop(0)
                for keeper in keepers:
                    keeper.cancel()
                if self.tracing is not None:
                    await self.tracing.aclose()

    async def drain_runs(self) -> None:
        """Take no new runs, tell everybody to go, and end what is left when the drain's time is over: see Drain."""
        await self._drain.runs()

    def change_pools(self, settings: Settings) -> Coroutine[Any, Any, None]:
        """Serve by the pools of other settings, and by new processes of those that stay: see Pools.change, which is returned.

        Raises:
            SettingsError: a file for the TLS towards a worker can't be used; nothing was changed.
        """
        before, self._worker_tls = self._worker_tls, all_tls(settings)
        spoken_to_otherwise = {name for name, tls in self._worker_tls.items() if name in before and before[name] != tls}
        return self._change_pools(self.hosting.pools(settings), spoken_to_otherwise)

    async def _change_pools(self, wanted: Sequence[PoolOptions], spoken_to_otherwise: Collection[str]) -> None:
        await self.hosting.admit(wanted)
        await self._pools.change(wanted, spoken_to_otherwise)

    def _make_pool(self, options: PoolOptions) -> Pool:
        connect = partial(self._connect, tls=self._worker_tls.get(options.name))
        pool: Pool
        if isinstance(options, ServiceOptions):
            pool = ServicePool(options, connect)
        else:
            pool = Pool(options, connect, speak=self.hosting.speak(options))
        # The hub is made of the first pools.
        pool.cause_of = lambda run_id: self.hub.cause_of(run_id)
        return pool

    def _limit_callers(self, settings: LimitSettings) -> None:
        limits = quota_limits(settings)
        if self.hub.quotas is not None:
            self.hub.quotas.change(limits)
        elif limits:
            self.hub.quotas = Quotas(limits)

    async def _listen(self, bridge: BridgeServer) -> None:
        try:
            await bridge.start()
        except OSError as exc:
            _log.error("can't listen", grpc_address=self.settings.server.grpc_address, reason=str(exc))
            raise

    def reload_certificates(self) -> None:
        """Read the front doors' certificates again, for connections from now on; workers' are read at every dial.

        Raises:
            SettingsError: one can't be used; both front doors, or one of them, go on with what they had.
        """
        for shown in {self.certificates, self.grpc_certificates} - {None}:
            try:
                shown.reload()  # type: ignore[union-attr]
            except CertificatesNotUsable as exc:
                raise SettingsError(str(exc)) from exc

    def _connect(self, address: str, tls: TlsOptions | None = None) -> Channel:
        assert self._transport is not None, "pools connect while the gateway runs"
        return self._transport.connect(address, tls=tls)

    def _session_ended(self, session_id: str) -> None:
        for pool in self.pools.values():
            pool.forget_session(session_id)


def create_app(settings: Settings | None = None, gateway: Gateway | None = None) -> ExpressApp:
    """Return the ASGI application. `gateway` None: one made from `settings`; both None: settings from the environment."""
    if gateway is None:
        gateway = Gateway(settings or Settings())
    server = gateway.settings.server

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with gateway.run():
            yield

    app = ExpressApp(
        title="Snakepit Gateway", version=__version__, lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    problem.install(app, debug=server.debug)
    options = OptionLimits(
        server.timeout_s, server.timeout_limit_s, frozenset(server.meta_keys), server.reader_lag_bytes, server.grace_limit_s
    )
    limits = RequestLimits(server.body_limit_bytes, server.query_limit_bytes, server.argument_depth_limit, options)
    reader = CallReader(gateway.hub, gateway.sessions, limits)
    timing = StreamTiming(server.heartbeat_s, server.first_byte_hold_s, server.write_timeout_s)
    streaming = StreamSettings(timing, server.retry_ms, server.result_limit_bytes, server.wait_limit_s, server.debug)
    responses = RunResponses(gateway.hub, streaming)
    socket_settings = SocketSettings(
        runs_limit=server.socket_runs_limit,
        write_timeout_s=server.write_timeout_s,
        heartbeat_s=server.heartbeat_s,
        lag_bytes=server.reader_lag_bytes,
        debug=server.debug,
    )
    stream_tool, call_tool = stream.endpoint(reader, responses), call.endpoint(reader, responses)
    rpcs = rpc.RpcResponses(RpcReader(reader), responses)
    call_rpc = rpc.endpoint(rpcs)
    app.express = {"stream": stream_tool, "call": call_tool, RPC: call_rpc}
    app.exposure = exposure(gateway.settings)
    app.on_error = partial(problem.respond, debug=server.debug)
    app.on_socket_refused = websocket.refuse
    access = gateway.access
    admission = None if access is None else access.admission(gateway.hub)
    check = None if admission is None else admission.check_first_frame

    def offered() -> list[Tool]:
        return [*gateway.catalog.list(), *gateway.catalog.methods()]

    build = openapi.build if access is None else openapi.build_secured
    routers: tuple[APIRouter, ...] = (
        stream.router(stream_tool),
        call.router(call_tool),
        rpccatalogue.router(gateway.catalog),
        rpc.router(call_rpc),
        tools.router(gateway.catalog),
        background.router(reader, responses),
        runs.router(gateway.hub, reader, responses),
        sessions.router(gateway.sessions, limits, gateway.hub),
        admin.router(gateway.hub),
        health.router(gateway.hub),
        docs.router(),
        itemschemas.router(offered, lambda some: build(app, some, annotated_routes.routes())),
        asyncapi.router(gateway.catalog.list),
        websocket.router(reader, socket_settings, gateway.sockets, check),
        console.router(),
    )
    if server.probes:
        routers += (probe.router(body_limit_bytes=server.body_limit_bytes, heartbeat_s=server.heartbeat_s),)
    if gateway.settings.log.access:
        app.access = AccessLog()
    if access is not None:
        app.admission = admission
        sign_in = signin.router(access.authenticator.check, access.sessions, access.cookie, ttl_s=gateway.settings.auth.cookie_ttl_s)
        routers += (sign_in, tickets.router(access.tickets))
    if gateway.tally is not None:
        app.responses = ResponseTally()
        routers += (metrics.router(_metrics(gateway, gateway.tally, app.responses)),)
    for router in routers:
        app.include_router(router)
    describe = openapi.install if access is None else openapi.install_secured
    describe(app, offered, lambda: annotated_routes.routes())
    annotated_routes = annotated.AnnotatedRoutes(gateway.catalog, annotated.own_templates((*routers, app.router)))
    annotated.install(app, annotated_routes, rpcs)
    if refused := annotated_routes.look():
        raise SettingsError("; ".join(refused))
    return app


def _metrics(gateway: Gateway, runs: RunTally, responses: ResponseTally) -> Metrics:
    shared_log = None if gateway.shared is None else gateway.shared.log
    state = Gauges(gateway.hub, gateway.sockets, gateway.sessions, shared_log)
    return Metrics(
        version=__version__, transport=gateway.settings.transport, collectors=[RunTotals(runs), state, ResponseTotals(responses)]
    )


def _nothing(settings: Settings) -> None:
    """Take over nothing: who needs the setting reads it anew."""
