"""What a pool is told about itself: one frozen value, made by settings and read by everything in workers/."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gateway.call import Affinity


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """One pool. `kind` "local" starts worker processes of `adapter`; "addresses" dials workers that others run; "snakepit" is
    Snakepit's own workers, started by `command` or at `addresses`, behind the gateway as their host; "bridge" dials BridgeServers,
    which have workers of their own; "rpc" a gRPC server that is no worker (services/options.py).

    Raises:
        ValueError: an option is missing or out of range.
    """

    name: str
    kind: Literal["local", "addresses", "snakepit", "bridge", "rpc"] = "local"
    # local: "module:Class" or "file.py[:Class]", as the worker's --adapter takes it. snakepit: "module.Class".
    adapter: str | None = None
    # snakepit: the program that is its worker, and its arguments; what Snakepit adds to them is added.
    command: tuple[str, ...] = ()
    # addresses: `host:port`, `unix:/path` or `dns:///name:port`; one worker each.
    addresses: tuple[str, ...] = ()
    # Names of tools, for workers that can't describe themselves; of Snakepit's, those that they don't register.
    tools: tuple[str, ...] = ()
    # bridge: the worker of the server's own that the tools are registered for; None: they are there without that.
    worker_id: str | None = None
    # bridge: gRPC metadata of every call to it, such as a credential.
    headers: Mapping[str, str] = field(default_factory=dict)
    # local, and snakepit with a command: worker processes.
    size: int = 2
    # Executions at once in one worker. A worker that describes itself says its own.
    concurrency: int = 1

    # Requests that may wait for a worker; one more is `pool-saturated`. 0: nobody waits.
    queue_limit: int = 1000
    queue_timeout_s: float = 10.0
    affinity: Affinity = Affinity.HINT

    # What chunks hold: "json" is passed on unchecked, "auto" checks each. None: json where a worker describes itself as
    # one of ours, which send nothing else; auto where it can't.
    payload: Literal["auto", "json"] | None = None

    # local: added to the gateway's own environment, of which GATEWAY_* is left out.
    env: Mapping[str, str] = field(default_factory=dict)
    # local: put first on the worker's sys.path; None: the gateway's working directory.
    pythonpath: str | None = None
    python: str = sys.executable

    # local: where the gateway's host tools are served, for the worker's code to call; None: there are none.
    host_tools_address: str | None = None

    # snakepit, whose workers break when they are made to wait: what is taken from one that no reader has taken yet, beyond
    # what a reader may lag; more ends the call.
    stall_limit_bytes: int = 16 * 1024 * 1024
    # The longest silence of a streaming call that names no limit of its own; None: as long as its time-out.
    idle_timeout_s: float | None = None

    # A worker is replaced after this many executions, or this long after its start, both less up to 10 %; None: never.
    max_requests: int | None = None
    ttl_s: float | None = None

    # From exec (or dial) until the worker has described itself.
    start_timeout_s: float = 60.0
    # How long a cancelled tool may take to stop before its worker is replaced.
    stop_timeout_s: float = 10.0
    # How long the other streams of a worker with a stuck tool may go on.
    drain_timeout_s: float = 30.0
    # From SIGTERM to SIGKILL.
    terminate_timeout_s: float = 5.0

    # A worker that misses `health_misses` checks in a row, with no stream delivering meanwhile, is replaced.
    health_interval_s: float = 10.0
    health_timeout_s: float = 5.0
    health_misses: int = 3

    def __post_init__(self) -> None:
        if self.kind == "local" and not self.adapter:
            raise ValueError(f"pool {self.name!r}: a local pool needs an adapter")
        if self.kind in ("addresses", "bridge") and not self.addresses:
            raise ValueError(f"pool {self.name!r}: a pool of addresses needs at least one address")
        if self.kind == "bridge" and not self.tools:
            raise ValueError(f"pool {self.name!r}: a BridgeServer can't describe its tools: list their names in the pool's `tools`")
        if self.kind == "snakepit" and bool(self.command) == bool(self.addresses):
            raise ValueError(f"pool {self.name!r}: a pool of Snakepit's workers needs a command, or else addresses")
        if self.command and not self.adapter:
            raise ValueError(f"pool {self.name!r}: a command needs an adapter")
        if self.size < 1 or self.concurrency < 1:
            raise ValueError(f"pool {self.name!r}: size and concurrency are at least 1")
        if self.queue_limit < 0 or self.queue_timeout_s < 0:
            raise ValueError(f"pool {self.name!r}: queue_limit and queue_timeout_s can't be negative")

    @property
    def starts_processes(self) -> bool:
        """Whether the pool's workers are processes of ours."""
        return not self.addresses
