"""`[[pools]]`: the workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.call import Affinity
from gateway.settings.section import Count, Seconds, Section

_TOOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
TOOL_NAME_RULE = "1 to 64 of the characters A-Z a-z 0-9 _ . -, the first a letter or digit"


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
    """One `[[pools]]`. `kind` is `local` with an adapter and `addresses` with addresses, unless said; `bridge` has to be said."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "default"
    kind: Literal["local", "addresses", "bridge"] | None = None
    adapter: str | None = None
    addresses: tuple[str, ...] = ()
    # Whether the addresses are spoken to over TLS; a table says with which files.
    tls: bool | WorkerTlsSettings = False
    tools: tuple[str, ...] = ()
    # bridge: a worker of the BridgeServer's own, such as default_worker_1_1, for which the tools are registered; none: they are there.
    worker_id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    size: Annotated[int, Field(ge=1, le=1024)] = 2
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    queue_timeout_s: Seconds = 10.0
    affinity: Affinity = Affinity.HINT
    payload: Literal["auto", "json"] | None = None
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
        if self.adapter is None and not self.addresses:
            raise ValueError(f"pool {self.name!r} has neither an adapter nor addresses")
        if self.adapter is not None and self.addresses:
            raise ValueError(f"pool {self.name!r} has both an adapter and addresses")
        if self.adapter is not None and self.tls:
            raise ValueError(f"pool {self.name!r}: tls is for addresses; the workers of an adapter are spoken to over a Unix socket")
        if isinstance(self.tls, WorkerTlsSettings) and (self.tls.cert is None) != (self.tls.key is None):
            raise ValueError(f"pool {self.name!r}: tls.cert and tls.key belong together: give both or neither")
        kinds = ("local",) if self.adapter is not None else ("addresses", "bridge")
        if self.kind not in (None, *kinds):
            raise ValueError(f"pool {self.name!r}: kind is {self.kind!r}, but what it has makes it {' or '.join(map(repr, kinds))}")
        if self.worker_id is not None and self.kind != "bridge":
            raise ValueError(f'pool {self.name!r}: worker_id is for kind = "bridge"')
        if self.kind == "bridge" and not self.tools:
            raise ValueError(f"pool {self.name!r}: a BridgeServer can't describe its tools: list their names in `tools`")
        for name in self.tools if self.kind == "bridge" else ():
            if _TOOL_NAME.fullmatch(name) is None:
                raise ValueError(f"pool {self.name!r}: tools: a BridgeServer takes no name {name[:80]!r}; allowed: {TOOL_NAME_RULE}")
        return self
