"""What the parts of a gateway are told, from its settings: functions without a state, for app.py.

What can't be used is a SettingsError that names the setting.
"""

from __future__ import annotations

import os
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
from gateway.runs.hub import HubLimits
from gateway.runs.policy import RunLimits
from gateway.runs.quotas import CallerLimits, QuotaLimits
from gateway.settings import (
    CallerLimitSettings,
    LimitSettings,
    PoolSettings,
    ServerSettings,
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
    # Needs the extra `otel`.
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
    """Return the pools of the settings; without any, the demo tools' pool."""
    return settings.pools or (PoolSettings(adapter=str(demo_adapter()), size=4),)


def configured_pools(settings: Settings, host_tools_address: str | None = None) -> list[PoolOptions]:
    """Return what the pools are told; `host_tools_address`: see PoolOptions."""
    options = [pool_options(pool, settings.transport) for pool in pools_of(settings)]
    return [replace(pool, host_tools_address=host_tools_address) if pool.kind == "local" else pool for pool in options]


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


def worker_tls(pool: PoolSettings) -> TlsOptions | None:
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
        raise SettingsError(f"pool {pool.name!r}: tls: {exc}") from exc
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


def exposure(server: ServerSettings) -> Exposure:
    """Return to whom the server shows itself: on loopback only to those who call it by a name of loopback, unless more are named."""
    hosts = server.allowed_hosts
    if not is_public(server.host):
        hosts = (*LOOPBACK_HOSTS, f"[{server.host}]" if ":" in server.host else server.host, *hosts)
    origins = server.allowed_origins
    return Exposure(
        HostRule(hosts), OriginRule(origins), Cors(origins, credentials=server.allowed_credentials), TrustedProxies(server.trusted_proxies)
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
