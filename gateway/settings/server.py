"""`[server]`: the front doors."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from gateway.endpoints.hosts import parse_pattern
from gateway.endpoints.origin import ANY, parse_origin
from gateway.settings.section import ByteCount, Count, Seconds, Section


def _network(text: str) -> str:
    """Return an address or network of the settings as it is.

    Raises:
        ValueError: it is neither.
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as exc:
        raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8: {exc}") from exc


class ServerSettings(Section):
    """`[server]`: the listeners, the stream's timing, and the limits of requests."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    # `host:port` or `unix:/path` of the gRPC front door; empty: none.
    grpc_address: str = "127.0.0.1:50051"
    # TLS on the HTTP front door, and on the gRPC one unless that has files of its own or `grpc_tls = false`: the certificate with its
    # chain, its key without a password, and the authorities of clients, which then need a certificate. All are files in PEM.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    grpc_tls: bool = True
    grpc_tls_cert: Path | None = None
    grpc_tls_key: Path | None = None
    grpc_tls_client_ca: Path | None = None
    # Silence on a stream before a heartbeat; the longest hold of its status line; the longest blocked write.
    heartbeat_s: Seconds = 10.0
    first_byte_hold_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    write_timeout_s: Seconds = 30.0
    # How long an EventSource waits before it reconnects.
    retry_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 2000
    # The budget of a run that names none, and the most it may name.
    timeout_s: Seconds = 300.0
    timeout_limit_s: Seconds = 3600.0
    # A request's head, all of it and the number of its fields; how long it may take to be there, counted from the connection or from
    # its first byte, and how long a connection without a request is kept: longer than proxies keep theirs, usually 60 s.
    head_limit_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 64 * 1024
    head_fields_limit: Count = 100
    head_timeout_s: Seconds = 10.0
    keep_alive_timeout_s: Seconds = 65.0
    # A body has this time, and a second more for so many bytes that have come.
    body_timeout_s: Seconds = 30.0
    body_rate_bytes_s: ByteCount = 4096
    # Connections open at once, WebSockets and streams included; of one address: 0 for no limit, since a proxy's clients share one.
    connections_limit: Count = 20_000
    connections_per_address_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    body_limit_bytes: ByteCount = 16 * 1024 * 1024
    query_limit_bytes: ByteCount = 32 * 1024
    argument_depth_limit: Annotated[int, Field(ge=1, le=900)] = 64
    # What is held for an answer that is one JSON document.
    result_limit_bytes: ByteCount = 64 * 1024 * 1024
    # Runs that are queued or running at once.
    open_runs_limit: Count = 10_000
    # How far a reader may lag before its `_overflow` applies: by default the worker waits.
    reader_lag_bytes: ByteCount = 256 * 1024
    # The longest `_on_disconnect=grace:…`, and the longest that a `Prefer: wait=…` is waited for.
    grace_limit_s: Seconds = 3600.0
    wait_limit_s: Annotated[int, Field(ge=0, le=3600)] = 60
    # WebSockets open at once, runs on one of them, the size of one frame from a client, and of a message in fragments; how often a client
    # is asked whether it is still there, and how long it has to answer.
    sockets_limit: Count = 10_000
    socket_runs_limit: Count = 100
    socket_frame_limit_bytes: ByteCount = 1024 * 1024
    socket_ping_s: Seconds = 20.0
    # Names by which we may be called: `gateway.example.com`, with `:port` or for all, `*.example.com`. On loopback its own names are
    # among them; elsewhere none means all.
    allowed_hosts: tuple[Annotated[str, AfterValidator(parse_pattern)], ...] = ()
    # Web pages of other origins that may use the API: `https://app.example.com`, or `*`; and whether they may with cookies.
    allowed_origins: tuple[Annotated[str, AfterValidator(parse_origin)], ...] = ()
    allowed_credentials: bool = False
    # Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses and networks.
    trusted_proxies: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    # Keys of `_meta.<key>` that a request may set in its call's metadata.
    meta_keys: tuple[str, ...] = ()
    # How long the gateway waits for its first workers before it listens: a browser's EventSource comes back to a port that refuses, but
    # never to a 503.
    start_wait_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    # How long after a signal new runs still begin, while /readyz says 503 already: for those who route to hear of it.
    drain_delay_s: Annotated[float, Field(ge=0, le=3600)] = 0.0
    # How long a drain waits for open runs; about how long it tells WebSocket clients to wait before they connect again.
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    reconnect_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 2000
    # What runs' logs, slow connections, bodies and the shared log's queue may hold together; over it logs go, then new runs are
    # refused, then the slowest readers are cut. By default only the bounds of each hold.
    memory_limit_bytes: ByteCount | None = None
    # Whether there is GET /metrics, for Prometheus; without it nothing is counted.
    metrics: bool = True
    # Whether `gateway doctor` can measure the path to here: streams of its own, at most 20 at once.
    probes: bool = True
    # Tracebacks of tools in problem documents.
    debug: bool = False
    # Serve on a public address without authentication, which is otherwise refused.
    insecure: bool = False

    @model_validator(mode="after")
    def _certificates_are_whole(self) -> ServerSettings:
        for prefix in ("tls", "grpc_tls"):
            cert, key, client_ca = (getattr(self, f"{prefix}_{part}") for part in ("cert", "key", "client_ca"))
            if (cert is None) != (key is None):
                raise ValueError(f"{prefix}_cert and {prefix}_key belong together: give both or neither")
            if client_ca is not None and cert is None:
                raise ValueError(f"{prefix}_client_ca: clients show a certificate only over TLS; give {prefix}_cert and {prefix}_key too")
        if self.grpc_tls_cert is not None and not self.grpc_tls:
            raise ValueError("grpc_tls is false, but there is a grpc_tls_cert")
        return self

    @model_validator(mode="after")
    def _credentials_are_for_somebody(self) -> ServerSettings:
        if self.allowed_credentials and ANY in self.allowed_origins:
            raise ValueError(
                'allowed_credentials: with allowed_origins = ["*"] every page on the web could act as its visitor; name the origins'
            )
        return self
