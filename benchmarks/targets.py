"""What is measured: the gateway and its peers, as processes that take the same streams over HTTP.

A target says how it is started, how a plan is asked for, how an event of its streams ends, and where the timestamp
in one is read. The gateway stands here; the peers are in peers/.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import stamp
from benchmarks.plan import TOOL, Plan
from benchmarks.process import Process, running

READY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a run takes place: the upstream's port, the target's core, and a folder for configurations and logs."""

    upstream_port: int
    core: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Served:
    """A target that serves."""

    process: Process
    port: int


class Target(Protocol):
    """One thing to measure.

    `mark` ends every event; a stream has `extra_events` besides its chunks. `scale` makes the load of cases that count
    chunks smaller, so that a slow target ends in reasonable time; figures are for each event, so it doesn't move them.
    """

    @property
    def name(self) -> str: ...

    @property
    def mark(self) -> bytes: ...

    @property
    def extra_events(self) -> int: ...

    @property
    def stamps(self) -> stamp.Reader: ...

    @property
    def scale(self) -> float: ...

    def missing(self) -> str | None:
        """Why it can't be started here; None when it can."""

    def request(self, plan: Plan) -> bytes:
        """Return the HTTP/1.1 request for a stream."""

    def serving(self, stand: Stand) -> contextlib.AbstractContextManager[Served]:
        """Run it for the time of the block; it answers from the beginning."""


def post(path: str, document: object, accept: str = "text/event-stream") -> bytes:
    """Return a POST of a JSON document."""
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_ready(process: Process, port: int, path: str) -> None:
    """Return when the path answers 200.

    Raises:
        RuntimeError: the process ended, or it took too long.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and not process.has_exited:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"not ready; its log ends:\n{process.log.read_text()[-2000:]}")


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway. `transport` is how it reaches its workers; None: its default. `accept` chooses SSE or JSON lines.

    `packages` is a folder with another build of it; None: the sources, interpreted.
    """

    name: str = "gateway"
    transport: str | None = None
    packages: Path | None = None
    accept: str = "text/event-stream"
    mark: bytes = b"\n\n"
    # `start` and `end`.
    extra_events: int = 2
    stamps: stamp.Reader = stamp.plain
    scale: float = 1.0

    def missing(self) -> str | None:
        return None if self.packages is None or self.packages.is_dir() else "it was not built (make compiled)"

    def request(self, plan: Plan) -> bytes:
        return post(f"/v1/tools/{TOOL}/stream", plan.arguments(), self.accept)

    @contextlib.contextmanager
    def serving(self, stand: Stand) -> Iterator[Served]:
        with self.serving_pool(stand, self.pool_of(stand)) as served:
            yield served

    @staticmethod
    def pool_of(stand: Stand) -> str:
        """Return the settings of the pool that reaches the upstream, lines of TOML."""
        return f'addresses = ["127.0.0.1:{stand.upstream_port}"]\npayload = "json"'

    @contextlib.contextmanager
    def serving_pool(self, stand: Stand, pool: str, *, log_url: str = "memory://") -> Iterator[Served]:
        """Run it with a pool of these settings, lines of TOML, and its runs' log at this URL."""
        with self.serving_upstream(stand, f'[[pools]]\nname = "default"\n{pool}', log_url=log_url) as served:
            yield served

    @contextlib.contextmanager
    def serving_upstream(self, stand: Stand, upstream: str, *, log_url: str = "memory://") -> Iterator[Served]:
        """Run it with this section on what is behind it, and its runs' log at this URL."""
        config = stand.folder / "gateway.toml"
        config.write_text(f'[server]\ngrpc_address = ""\n[log]\nlevel = "warning"\n[runlog]\nurl = "{log_url}"\n{upstream}\n')
        port = free_port()
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--port", str(port)]
        env = {"GATEWAY_TRANSPORT": self.transport} if self.transport else {}
        if self.packages is not None:
            env["PYTHONPATH"] = str(self.packages)
        # Not in the sources' folder, where `-m` would find them first.
        with running(command, core=stand.core, env=env, log=stand.folder / "gateway.log", folder=stand.folder) as process:
            wait_ready(process, port, "/readyz")
            yield Served(process, port)
