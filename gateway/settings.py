"""What an operator can set: command line > environment (`GATEWAY_…`, `__` between levels) > `.env` > TOML file > defaults.

Read by app.py and cli/serve.py only; every other module is handed the values it needs. A key that nobody knows is an
error that names the nearest known one. Source: docs of the protocol, section 7.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as ValueNotRead

from gateway.call import Affinity
from gateway.endpoints.hosts import parse_pattern
from gateway.endpoints.origin import ANY, parse_origin

Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
ByteCount = Annotated[int, Field(ge=1)]
# Of tokens: asymmetric ones alone. With a symmetric one, who knows the public key could sign (RFC 8725 §2.1).
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


ENV_PREFIX = "GATEWAY_"
# Variables of that prefix which are no settings: the client commands' own.
OTHER_VARIABLES = frozenset({"GATEWAY_URL", "GATEWAY_KEY"})


def _network(text: str) -> str:
    """Return an address or network of the settings as it is.

    Raises:
        ValueError: it is neither.
    """
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as exc:
        raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8: {exc}") from exc


class SettingsError(Exception):
    """Settings that can't be used; the text is for the operator, a line for each mistake."""


class Section(BaseModel):
    """A table of the settings; refuses keys it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class AuthSettings(Section):
    """`[auth]`: who may come in. `auto`: authentication is on where there are keys or an identity provider."""

    mode: Literal["auto", "on", "off"] = "auto"
    # API keys, a line each: NAME sha256:HASH SCOPE…; `gateway keys new` makes one. In a file, or here (`;` ends a line, too).
    keys_file: Path | None = None
    keys: str = ""
    # The JWKS of an identity provider, a URL or a file, and what its tokens have to say.
    jwks: str | None = None
    issuer: str | None = None
    audience: str | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = get_args(Algorithm)
    leeway_s: Annotated[int, Field(ge=0, le=600)] = 30
    scope_claim: str = "scope"
    jwks_refresh_s: Seconds = 300.0
    # Signs session cookies and tickets; gateways that share a log need the same one. None: one of this process's own.
    secret: SecretStr | None = None
    # How long a session cookie lives; whether it is for HTTPS alone, None: as the request came.
    cookie_ttl_s: Seconds = 12 * 3600.0
    cookie_secure: bool | None = None

    @property
    def is_on(self) -> bool:
        """Whether callers have to say who they are."""
        return self.mode == "on" or (self.mode == "auto" and self._has_callers)

    @property
    def _has_callers(self) -> bool:
        return bool(self.keys_file or self.keys or self.jwks)

    @model_validator(mode="after")
    def _is_complete(self) -> AuthSettings:
        if self.mode == "on" and not self._has_callers:
            raise ValueError("mode is 'on', but nobody could come in: there are no keys_file, keys or jwks")
        if self.jwks is not None and not (self.issuer and self.audience):
            raise ValueError("jwks needs issuer and audience: a token that is for somebody else must not do")
        if self.secret is not None and len(self.secret.get_secret_value()) < 32:
            raise ValueError("secret has less than 32 characters; `openssl rand -base64 32` makes one")
        return self


class SessionSettings(Section):
    """`[sessions]`."""

    ttl_s: Seconds = 3600.0
    limit: Count = 10_000


class RunLogSettings(Section):
    """`[runlog]`: what is kept of runs, so that readers may come back to them."""

    # Where: in this process, or in a Redis or Valkey server that many gateways share (extra `redis`): `redis://`, `rediss://`,
    # `valkey://` or `valkeys://`, then `[user:password@]host[:port][/database]`.
    url: Annotated[str, Field(pattern=r"^(memory://$|(redis|valkey)s?://.)")] = "memory://"
    # How the keys in that server begin: one for each group of gateways.
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = "gateway:"
    # A gateway that shows no sign of life for so long is taken for dead soon after, and its runs are ended.
    lease_ttl_s: Annotated[float, Field(ge=1, le=300)] = 5.0
    # What waits for that server while it can't be reached; over it the oldest chunks of the fullest run become a gap.
    queue_limit_bytes: ByteCount = 64 * 1024 * 1024
    # The chunks of one run, in bytes (with what Python needs besides) and in number; and of all runs together. A plain run is one
    # that ends with its last subscriber (`_on_disconnect=cancel`) and has no idempotency key: hardly anybody comes back to it.
    run_limit_bytes: ByteCount = 4 * 1024 * 1024
    plain_run_limit_bytes: ByteCount = 512 * 1024
    run_limit_chunks: Count = 100_000
    limit_bytes: ByteCount = 256 * 1024 * 1024
    # How long an ended run is kept, and how many are.
    ttl_s: Seconds = 300.0
    kept_runs_limit: Count = 10_000


class CallerLimitSettings(Section):
    """What one caller may take; 0 for no limit, what isn't said is as for everybody.

    `streams`: runs that are queued or running at once. The other two: within any minute.
    """

    streams: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    starts_per_minute: Annotated[int, Field(ge=0, le=100_000)] | None = None
    bytes_per_minute: Annotated[int, Field(ge=0)] | None = None


class LimitSettings(CallerLimitSettings):
    """`[limits]`: what every caller may take, and in `[limits.callers.NAME]` one whose id is that. By default there is no limit."""

    callers: dict[str, CallerLimitSettings] = {}
    # Whether anonymous callers on this machine are counted, too: all together. A proxy here speaks for everybody.
    count_loopback: bool = False


class LogSettings(Section):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    # Which runs get a line when they end: all, or those that failed or ran out of time.
    runs: Literal["errors", "all"] = "errors"
    # A line on each request: never its query string.
    access: bool = False


class TracingSettings(Section):
    """`[tracing]`: a span for each run (extra `otel`); what is not said here, the standard OTEL_… variables say."""

    # `auto`: where there is an endpoint, here or in OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT.
    exporter: Literal["auto", "otlp", "none"] = "auto"
    # Where spans go, over OTLP/HTTP: a whole URL, such as http://localhost:4318/v1/traces.
    endpoint: Annotated[str, Field(pattern=r"^https?://.")] | None = None
    sample_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    service_name: str | None = None


class WorkerTlsSettings(Section):
    """`tls` of a pool of addresses. All files are PEM; see TlsOptions in transport/tls.py."""

    # The authorities of the workers' certificates; none: those of the system.
    ca: Path | None = None
    # What we show to workers that ask for it.
    cert: Path | None = None
    key: Path | None = None
    # The name that the workers' certificates have, where it isn't the address's host.
    server_name: str | None = None


class PoolSettings(Section):
    """One `[[pools]]`. `kind` is `local` with an adapter and `addresses` with addresses, unless said."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "default"
    kind: Literal["local", "addresses"] | None = None
    adapter: str | None = None
    addresses: tuple[str, ...] = ()
    # Whether the addresses are spoken to over TLS; a table says with which files.
    tls: bool | WorkerTlsSettings = False
    tools: tuple[str, ...] = ()
    size: Annotated[int, Field(ge=1, le=1024)] = 2
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    queue_timeout_s: Seconds = 10.0
    affinity: Affinity = Affinity.HINT
    payload: Literal["auto", "json"] | None = None
    env: dict[str, str] = {}
    pythonpath: str | None = None
    max_requests: Count | None = None
    ttl_s: Seconds | None = None
    start_timeout_s: Seconds = 60.0
    stop_timeout_s: Seconds = 10.0
    drain_timeout_s: Seconds = 30.0
    terminate_timeout_s: Seconds = 5.0
    health_interval_s: Seconds = 10.0
    health_timeout_s: Seconds = 5.0
    health_misses: Count = 3

    @model_validator(mode="after")
    def _one_kind(self) -> PoolSettings:
        if self.adapter is None and not self.addresses:
            raise ValueError(f"pool {self.name!r} has neither an adapter nor addresses")
        if self.adapter is not None and self.addresses:
            raise ValueError(f"pool {self.name!r} has both an adapter and addresses")
        if self.adapter is not None and self.tls:
            raise ValueError(f"pool {self.name!r}: tls is for addresses; the workers of an adapter are spoken to over a Unix socket")
        if isinstance(self.tls, WorkerTlsSettings) and (self.tls.cert is None) != (self.tls.key is None):
            raise ValueError(f"pool {self.name!r}: tls.cert and tls.key belong together: give both or neither")
        kind = "local" if self.adapter is not None else "addresses"
        if self.kind is not None and self.kind != kind:
            raise ValueError(f"pool {self.name!r}: kind is {self.kind!r}, but what it has makes it {kind!r}")
        return self


class Settings(BaseSettings):
    """All settings. Without a pool the demo tools of examples/ml_streaming.py are served."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    sessions: SessionSettings = SessionSettings()
    runlog: RunLogSettings = RunLogSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    pools: tuple[PoolSettings, ...] = ()
    # How calls reach the workers.
    transport: Literal["lane", "grpcio"] = "lane"

    @model_validator(mode="after")
    def _names_differ(self) -> Settings:
        names = [pool.name for pool in self.pools]
        doubled = {name for name in names if names.count(name) > 1}
        if doubled:
            raise ValueError(f"two pools are named {', '.join(sorted(doubled))}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the TOML file below the environment, and leave other programs' variables in `.env` to them."""
        if isinstance(dotenv_settings, DotEnvSettingsSource):
            dotenv_settings.env_vars = _ours(dotenv_settings.env_vars)
        toml = TomlConfigSettingsSource(settings_cls, cls.model_config.get("toml_file"))
        return init_settings, env_settings, dotenv_settings, file_secret_settings, toml


def load(config: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Return the settings. `config` is a TOML file; `overrides` are those of the command line, by section.

    Raises:
        SettingsError: a key is unknown, a value is wrong, or the file can't be read.
    """
    if config is not None and not config.is_file():
        raise SettingsError(f"{config}: there is no such file")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    try:
        _check_variables({*os.environ, *dotenv_values(".env")})
        return FromFile(**(overrides or {}))
    except ValidationError as exc:
        raise SettingsError("\n".join(_explain(error) for error in exc.errors())) from exc
    except ValueNotRead as exc:
        raise SettingsError(f"{exc}: {exc.__cause__}") from exc
    except (ValueError, OSError) as exc:
        raise SettingsError(f"{config}: {exc}") from exc


def is_public(host: str) -> bool:
    """Return whether a host to listen on can be reached from other machines."""
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def is_public_address(address: str) -> bool:
    """Return whether a gRPC address, `host:port` or `unix:/path`, can be reached from other machines; empty: there is none."""
    if not address or address.startswith("unix:"):
        return False
    return is_public(address.removeprefix("dns:///").rpartition(":")[0].strip("[]"))


def check_exposure(settings: Settings) -> None:
    """Return if others than this machine's users can't get in, or have to say who they are, or that is wanted.

    Raises:
        SettingsError: what is open, and what to do.
    """
    server = settings.server
    public = [f"server.host {server.host}"] * is_public(server.host)
    public += [f"server.grpc_address {server.grpc_address}"] * is_public_address(server.grpc_address)
    if not public or settings.auth.is_on or server.insecure:
        return
    raise SettingsError(
        f"{' and '.join(public)} can be reached from other machines, and there is no authentication. "
        "Make a key (gateway keys new NAME --scope 'tools:*') and set GATEWAY_AUTH__KEYS or [auth] keys_file to its line, "
        "or set [auth] jwks. Or listen on 127.0.0.1; or, where the network lets in nobody else, say --insecure or [server] insecure = true"
    )


def _explain(error: Any) -> str:
    """Return one mistake as a line: where, what, and the nearest known key."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg']}" if where else error["msg"]
    known = _known_keys(path[:-1])
    near = difflib.get_close_matches(path[-1], known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"{where}: there is no such key; {hint}"


_SECTIONS: Mapping[str, type[BaseModel]] = {
    "server": ServerSettings,
    "auth": AuthSettings,
    "sessions": SessionSettings,
    "runlog": RunLogSettings,
    "limits": LimitSettings,
    "log": LogSettings,
    "tracing": TracingSettings,
    "pools": PoolSettings,
}


def _known_keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = _SECTIONS.get(path[0], Settings) if path else Settings
    if path[:2] == ["limits", "callers"]:
        model = CallerLimitSettings
    return list(model.model_fields)


def _ours(variables: Mapping[str, str | None]) -> Mapping[str, str | None]:
    return {name: value for name, value in variables.items() if name.upper().startswith(ENV_PREFIX)}


def _check_variables(names: Iterable[str]) -> None:
    """Return if every variable that looks like ours is one: pydantic-settings itself passes over the names it doesn't know.

    Raises:
        SettingsError: a line for each that isn't.
    """
    known = [f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields]
    nested = [f"{ENV_PREFIX}{name.upper()}__{key.upper()}" for name, model in _SECTIONS.items() for key in model.model_fields]
    lines = []
    for name in sorted(names):
        first = name.upper().partition("__")[0]
        if first.startswith(ENV_PREFIX) and first not in known and first not in OTHER_VARIABLES:
            without_section = [key for key in nested if key.endswith(f"__{name.upper().removeprefix(ENV_PREFIX)}")]
            near = without_section or difflib.get_close_matches(name.upper(), [*nested, *known], 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            lines.append(f"{name}: there is no such variable; {hint}")
    if lines:
        raise SettingsError("\n".join(lines))
