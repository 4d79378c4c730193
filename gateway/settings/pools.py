"""`[[pools]]`: the workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.call import Affinity
from gateway.codec.toolname import RULE, is_tool_name
from gateway.settings.section import ByteCount, Count, Seconds, Section

Kind = Literal["local", "addresses", "snakepit", "bridge"]

_HEADER = re.compile(r"(?!(?:grpc-.*|te|content-type|user-agent|connection|host)$)[a-z0-9_.-]{1,128}(?<!-bin)")
HEADER_RULE = "a name of 0-9 a-z _ . - that gRPC has no use for itself, and a value of printable ASCII"

NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"


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
    """One `[[pools]]`.

    `kind` is `snakepit` with a command, `local` with an adapter and `addresses` with addresses, unless said; `bridge` has to be said.
    """

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = "default"
    kind: Kind | None = None
    # `module:Class` or a file of our own workers; `module.Class` of Snakepit's.
    adapter: str | None = None
    # Snakepit's worker: `["python", "…/grpc_server.py"]`. What its host adds to that is added.
    command: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    # Whether the addresses are spoken to over TLS; a table says with which files.
    tls: bool | WorkerTlsSettings = False
    tools: tuple[str, ...] = ()
    # bridge: a worker of the BridgeServer's own, such as default_worker_1_1, for which the tools are registered; none: they are there.
    worker_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    # bridge: metadata of every call to it, such as { authorization = "Bearer …" } for a gateway that wants a key.
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    size: Annotated[int, Field(ge=1, le=1024)] = 2
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    queue_timeout_s: Seconds = 10.0
    affinity: Affinity = Affinity.HINT
    payload: Literal["auto", "json"] | None = None
    # Snakepit's workers can't be made to wait for a slow reader: so much is taken for it beyond what it may lag, then the call ends. And
    # they fall silent for good on some mistakes: the longest silence of a stream that names none, 0 for no limit; 300 for them.
    stall_limit_bytes: ByteCount = 16 * 1024 * 1024
    idle_timeout_s: Annotated[float, Field(ge=0, le=7 * 24 * 3600)] | None = None
    env: dict[str, str] = Field(default_factory=dict)
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
        if self.command and self.adapter is None and not self.addresses:
            raise ValueError(f"pool {self.name!r}: a command needs an adapter, such as my_adapter.MyAdapter")
        if self.adapter is None and not self.addresses:
            raise ValueError(f"pool {self.name!r} has neither an adapter nor addresses")
        if (self.adapter is not None or self.command) and self.addresses:
            raise ValueError(f"pool {self.name!r} has both {'an adapter' if self.adapter is not None else 'a command'} and addresses")
        if self.adapter is not None and self.tls:
            raise ValueError(f"pool {self.name!r}: tls is for addresses; processes of an adapter are spoken to on this machine")
        if isinstance(self.tls, WorkerTlsSettings) and (self.tls.cert is None) != (self.tls.key is None):
            raise ValueError(f"pool {self.name!r}: tls.cert and tls.key belong together: give both or neither")
        if self.kind not in (None, *self._kinds()):
            allowed = " or ".join(repr(kind) for kind in self._kinds())
            raise ValueError(f"pool {self.name!r}: kind is {self.kind!r}, but what it has makes it {allowed}")
        if self.command and ":" in (self.adapter or ""):
            raise ValueError(f"pool {self.name!r}: adapter is {self.adapter!r}; Snakepit's workers want module.Class, with dots alone")
        if (self.worker_id is not None or self.headers) and self.kind != "bridge":
            raise ValueError(f'pool {self.name!r}: worker_id and headers are for kind = "bridge"')
        if self.kind == "bridge":
            self._check_bridge()
        return self

    @property
    def kind_of_it(self) -> Kind:
        """The kind: what is said, else the first that fits what it has."""
        return self.kind or self._kinds()[0]

    def _check_bridge(self) -> None:
        if not self.tools:
            raise ValueError(f"pool {self.name!r}: a BridgeServer can't describe its tools: list their names in `tools`")
        for name in self.tools:
            if not is_tool_name(name):
                raise ValueError(f"pool {self.name!r}: tools: a BridgeServer takes no name {name[:80]!r}; allowed: {RULE}")
        for name, value in self.headers.items():
            # Not the value: it may be a secret.
            if _HEADER.fullmatch(name) is None or not (value.isascii() and value.isprintable() and len(value) <= 16384):
                raise ValueError(f"pool {self.name!r}: headers: {name[:80]!r} can't be sent; allowed: {HEADER_RULE}")

    def _kinds(self) -> tuple[Kind, ...]:
        """Return the kinds that fit what it has; the first one is meant where none is said."""
        if self.command:
            return ("snakepit",)
        return ("local",) if self.adapter is not None else ("addresses", "snakepit", "bridge")
