"""What the parts of a gateway are told, from its settings: functions without a state, for app.py.

What can't be used is a SettingsError that names the setting.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from gateway import __version__
from gateway.certificates import Certificates, CertificatesNotUsable
from gateway.endpoints.clients import TrustedProxies
from gateway.endpoints.cors import Cors
from gateway.endpoints.exposure import Exposure
from gateway.endpoints.hosts import LOOPBACK_HOSTS, HostRule
from gateway.endpoints.origin import OriginRule
from gateway.guard import ConnectionLimits
from gateway.runs.hub import Hub, HubLimits
from gateway.runs.policy import RunLimits
from gateway.runs.quotas import CallerLimits, QuotaLimits
from gateway.services.descriptors import DescriptorError, read_descriptor_set
from gateway.services.directory import Directory
from gateway.services.options import ServiceOptions
from gateway.settings import (
    CallerLimitSettings,
    LimitSettings,
    PoolSettings,
    ServerSettings,
    ServiceSettings,
    Settings,
    SettingsError,
    TracingSettings,
    WorkerTlsSettings,
    is_public,
)
from gateway.transport import TransportKind
from gateway.transport.tls import TlsOptions
from gateway.workers.options import PoolOptions
from gateway.workers.program import max_workers

if TYPE_CHECKING:
    # Need the extras `redis` and `otel`.
    from gateway.runs.shared import SharedRuns
    from gateway.telemetry.tracing import Tracing

_log = structlog.get_logger("gateway")

# What a stream of a Snakepit worker may be silent for, unless its pool says otherwise.
SNAKEPIT_IDLE_TIMEOUT_S = 300.0

_HERE = Path(__file__).resolve().parent


def hub_limits(settings: Settings) -> HubLimits:
    """Return the bounds on all runs together."""
    server, runlog = settings.server, settings.runlog
    return HubLimits(
        open_runs=server.open_runs_limit,
        kept_runs=runlog.kept_runs_limit,
        ttl_s=runlog.ttl_s,
        log_bytes=runlog.limit_bytes,
        run=RunLimits(runlog.run_limit_bytes, runlog.plain_run_limit_bytes, runlog.run_limit_chunks, server.heartbeat_s),
    )


def connection_limits(server: ServerSettings) -> ConnectionLimits:
    """Return what a client may take before its request is there."""
    return ConnectionLimits(
        head_bytes=server.head_limit_bytes,
        head_fields=server.head_fields_limit,
        head_timeout_s=server.head_timeout_s,
        keep_alive_timeout_s=server.keep_alive_timeout_s,
        body_timeout_s=server.body_timeout_s,
        body_rate_bytes_s=server.body_rate_bytes_s,
        connections=server.connections_limit,
        connections_per_address=server.connections_per_address_limit,
        uncounted=TrustedProxies(server.trusted_proxies),
        message_bytes=server.socket_frame_limit_bytes,
        ping_s=server.socket_ping_s,
    )


def demo_adapter() -> Path:
    """Return the file of the demo tools: in a checkout, or where the wheel puts it."""
    candidates = (_HERE.parent / "examples" / "ml_streaming.py", _HERE / "examples" / "ml_streaming.py")
    return next(path for path in candidates if path.is_file())


def pools_of(settings: Settings) -> tuple[PoolSettings, ...]:
    """Return the pools of the settings; without any, and without a service, the demo tools' pool."""
    if settings.pools or settings.services:
        return settings.pools
    return (PoolSettings(adapter=str(demo_adapter()), size=4),)


def configured_pools(settings: Settings, host_tools_address: str | None = None) -> list[PoolOptions]:
    """Return what the pools are told, those of the services behind all others; `host_tools_address`: see PoolOptions.

    Raises:
        SettingsError: a service's descriptor set can't be used.
    """
    options = [pool_options(pool, settings.transport) for pool in pools_of(settings)]
    workers = [replace(pool, host_tools_address=host_tools_address) if pool.kind == "local" else pool for pool in options]
    return [*workers, *map(service_options, settings.services)]


def pool_options(pool: PoolSettings, transport: TransportKind = "lane") -> PoolOptions:
    """Return what a pool is told, from its settings."""
    values = pool.model_dump(exclude={"kind", "tls"})
    kind = pool.kind_of_it
    if kind == "snakepit" and pool.idle_timeout_s is None:
        values["idle_timeout_s"] = SNAKEPIT_IDLE_TIMEOUT_S
    # 0 is no limit.
    values["idle_timeout_s"] = values["idle_timeout_s"] or None
    options = PoolOptions(kind=kind, **values)
    if "concurrency" not in pool.model_fields_set and (threads := max_workers(options)) is not None:
        # It takes so many streams on one connection, and grpcio has one: a health check must find room there.
        options = replace(options, concurrency=max(1, threads - (transport == "grpcio")))
    return options


def service_options(service: ServiceSettings) -> ServiceOptions:
    """Return what a service's pool is told, from its settings.

    Raises:
        SettingsError: its descriptor set can't be used.
    """
    values = service.model_dump(exclude={"name", "address", "tls", "descriptor_set", "services", "headers_in", "headers_out"})
    services = service.services or None
    directory = None
    if service.descriptor_set is not None:
        try:
            files = read_descriptor_set(service.descriptor_set.read_bytes())
            directory = Directory(files, services, with_defaults=service.default_values)
        except (OSError, DescriptorError) as exc:
            raise SettingsError(f"service {service.pool!r}: descriptor_set: {exc}") from exc
    return ServiceOptions(
        name=service.pool,
        kind="rpc",
        addresses=(service.address,),
        directory=directory,
        fingerprint="" if directory is None else directory.fingerprint,
        services=services,
        headers_in=frozenset(service.headers_in),
        headers_out=frozenset(service.headers_out),
        **values,
    )


def all_tls(settings: Settings) -> dict[str, TlsOptions | None]:
    """Return how the workers of each pool and each service are spoken to, by its name.

    Raises:
        SettingsError: a file can't be used.
    """
    pools = {pool.name: worker_tls(pool) for pool in settings.pools}
    return pools | {service.pool: worker_tls(service) for service in settings.services}


def worker_tls(pool: PoolSettings | ServiceSettings) -> TlsOptions | None:
    """Return how a pool's workers are spoken to; None: without TLS.

    Raises:
        SettingsError: a file can't be used.
    """
    if pool.tls is False:
        return None
    files = WorkerTlsSettings() if pool.tls is True else pool.tls
    options = TlsOptions(files.ca, files.cert, files.key, files.server_name)
    try:
        options.ssl_context()
    except OSError as exc:
        what = f"service {pool.pool!r}" if isinstance(pool, ServiceSettings) else f"pool {pool.name!r}"
        raise SettingsError(f"{what}: tls: {exc}") from exc
    return options


def quota_limits(limits: LimitSettings) -> QuotaLimits:
    """Return what callers are allowed, from the settings: what a caller's own table doesn't say is as for everybody, 0 is no limit."""
    callers = {name: _caller_limits(own, limits) for name, own in limits.callers.items()}
    return QuotaLimits(_caller_limits(limits, limits), callers, limits.count_loopback)


def _caller_limits(own: CallerLimitSettings, default: CallerLimitSettings) -> CallerLimits:
    said = default.model_dump(include=set(CallerLimitSettings.model_fields)) | own.model_dump(
        include=set(CallerLimitSettings.model_fields), exclude_none=True
    )
    return CallerLimits(**{name: value or None for name, value in said.items()})


def certificates(server: ServerSettings) -> tuple[Certificates | None, Certificates | None]:
    """Return what the HTTP and the gRPC front door show; None: no TLS there.

    Raises:
        SettingsError: a file can't be used.
    """
    http = grpc = None
    try:
        if server.tls_cert is not None and server.tls_key is not None:
            http = grpc = Certificates(server.tls_cert, server.tls_key, server.tls_client_ca)
        if server.grpc_tls_cert is not None and server.grpc_tls_key is not None:
            grpc = Certificates(server.grpc_tls_cert, server.grpc_tls_key, server.grpc_tls_client_ca, prefix="server.grpc_tls")
    except CertificatesNotUsable as exc:
        raise SettingsError(str(exc)) from exc
    return http, grpc if server.grpc_tls else None


def exposure(settings: Settings) -> Exposure:
    """Return to whom the server shows itself: on loopback only to those who call it by a name of loopback, unless more are named.

    Pages of other origins may read what services' metadata become as headers.
    """
    server = settings.server
    exposed = {name for service in settings.services for name in service.headers_out}
    hosts = server.allowed_hosts
    if not is_public(server.host):
        hosts = (*LOOPBACK_HOSTS, f"[{server.host}]" if ":" in server.host else server.host, *hosts)
    origins = server.allowed_origins
    return Exposure(
        HostRule(hosts),
        OriginRule(origins),
        Cors(origins, credentials=server.allowed_credentials, exposed=exposed),
        TrustedProxies(server.trusted_proxies),
    )


def tracing(settings: TracingSettings) -> Tracing | None:
    """Return what traces runs, None where nobody asks for that.

    Raises:
        SettingsError: the settings ask for it, and the packages for it are missing.
    """
    is_asked_for = settings.exporter == "otlp" or settings.endpoint is not None
    variables = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    is_off = settings.exporter == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or not (is_asked_for or any(os.environ.get(name) for name in variables)):
        return None
    try:
        from gateway.telemetry.tracing import Tracing, otlp
    except ImportError as exc:
        missing = f"tracing needs the extra `otel`: pip install 'snakepit-gateway[otel]' ({exc})"
        if is_asked_for:
            raise SettingsError(f"tracing: {missing}") from exc
        # Such variables may be there for everything on a machine.
        _log.warning("runs are not traced", reason=missing)
        return None
    return Tracing(otlp(settings.endpoint), version=__version__, service_name=settings.service_name, sample_ratio=settings.sample_ratio)


def shared_runs(settings: Settings, hub: Hub) -> SharedRuns | None:
    """Return what ties the hub to the other gateways; None where the log is in this process.

    Raises:
        SettingsError: the URL can't be used, or the package for it is missing.
    """
    runlog = settings.runlog
    if runlog.url == "memory://":
        return None
    try:
        from gateway.runlog.shared.options import SharedLogOptions
        from gateway.runs.shared import SharedRuns
    except ImportError as exc:
        raise SettingsError(f"runlog.url: a shared log needs the extra `redis`: pip install 'snakepit-gateway[redis]' ({exc})") from exc
    options = SharedLogOptions(
        prefix=runlog.prefix,
        lease_ttl_s=runlog.lease_ttl_s,
        lease_interval_s=runlog.lease_ttl_s / 5,
        queue_limit_bytes=runlog.queue_limit_bytes,
        run_limit_bytes=runlog.run_limit_bytes,
        run_limit_entries=runlog.run_limit_chunks,
        ttl_s=runlog.ttl_s,
    )
    gateway_id = f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
    try:
        return SharedRuns(hub, runlog.url, gateway_id, options, session_ttl_s=settings.sessions.ttl_s)
    except ValueError as exc:
        raise SettingsError(f"runlog.url: {exc}") from exc
