"""A gateway as its users see it: a process with sockets, started for a test and judged when it is stopped.

Used by tests/e2e and tests/browser. Everything a gateway and its workers start carries the test's directory in its
environment, so that what stays behind is found, whoever its parent is by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from httpx_sse import EventSource, ServerSentEvent

from gateway.codec.values import JSON_TYPE_URL
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc

ROOT = Path(__file__).resolve().parents[2]
JOURNAL_ADAPTER = Path(__file__).with_name("adapter.py")
DEMO_ADAPTER = ROOT / "examples" / "ml_streaming.py"
PATIENCE_S = 20.0

# Words that no log of a healthy gateway has, whatever its clients and workers do.
ALARMS = ("Traceback", "never retrieved", "never awaited", "was destroyed but it is pending", "unexpected error", "supervision failed")


class Served:
    """One running `gateway serve`. `start` returns when it answers; `stop` fails when it leaves anything behind."""

    def __init__(
        self,
        directory: Path,
        arguments: tuple[str, ...],
        settings: str,
        environment: Mapping[str, str],
        packages: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.directory = directory
        self.tls = tls
        self.log = directory / "log"
        self._arguments = arguments
        if settings:
            (directory / "gateway.toml").write_text(settings)
            self._arguments += ("--config", str(directory / "gateway.toml"))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self._environment = inherited | {"E2E_DIRECTORY": str(directory)} | dict(environment)
        # Not in the sources' folder, where `-m` would find them first.
        self._folder = ROOT if packages is None else directory
        if packages is not None:
            self._environment["PYTHONPATH"] = str(packages)
        self.port = 0
        self.grpc_port = 0

    def start(self, *, ready: bool = True) -> Served:
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--grpc-address", "127.0.0.1:0", *self._arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            wait_for(self._listens, "its listeners")
            # As for the client commands: what it is asked with where it wants a key.
            key = self._environment.get("GATEWAY_KEY")
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            verify = self.tls or False
            self.client = httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False, verify=verify)
            if ready:
                wait_for(self.is_ready, "its workers")
        except BaseException:
            self.kill()
            raise
        return self

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def stop(self, *, exit_code: int = 0) -> None:
        """Send SIGTERM and judge what comes after: the exit code, the processes left, the log."""
        try:
            self.process.send_signal(signal.SIGTERM)
            code = self.process.wait(PATIENCE_S)
            assert code == exit_code, f"exit code {code}; log:\n{self.log.read_text()}"
            self.check_remains()
        finally:
            self.kill()

    def check_remains(self) -> None:
        """Fail where a process or an alarming line is left."""
        wait_for(lambda: not self.processes(), f"its processes to be gone; left: {self.processes()}")
        alarming = [line for line in self.log.read_text().splitlines() if any(alarm in line for alarm in ALARMS)]
        assert not alarming, "\n".join(alarming)

    def kill(self) -> None:
        """End everything at once, for a test that has failed anyway; harmless after `stop`."""
        self.process.kill()
        self.process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self, "client"):
            self.client.close()

    def processes(self) -> list[int]:
        """The gateway and all processes that it or its workers have started and that are still there."""
        mark = f"E2E_DIRECTORY={self.directory}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                # Gone meanwhile, somebody else's, or a zombie, whose environment is empty.
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes() + b"\0":
                        found.append(int(entry.name))
        return sorted(found)

    def workers(self) -> list[int]:
        """The worker processes."""
        return [pid for pid in self.processes() if pid != self.pid]

    def log_lines(self) -> list[dict[str, Any]]:
        """The gateway's log so far."""
        lines = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def journal(self, tag: str) -> list[str]:
        """What has happened so far to the tool that was given this tag."""
        path = self.directory / "journal"
        if not path.exists():
            return []
        entries = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return [entry["what"] for entry in entries if entry["tag"] == tag]

    def open_gate(self, tag: str, *gates: int) -> None:
        """Let a `gated` tool yield these numbers."""
        for gate in gates:
            (self.directory / f"{tag}.{gate}").touch()

    def pools(self) -> dict[str, dict[str, Any]]:
        return {pool["name"]: pool for pool in self.client.get("/v1/pools").json()["pools"]}

    def is_idle(self) -> bool:
        """Whether no pool has a call in flight, queued or stuck."""
        return all(pool["in_flight"] == pool["queued"] == pool["stuck"] == 0 for pool in self.pools().values())

    def http(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S, trust_env=False, limits=limits, verify=self.tls or False)

    def is_ready(self) -> bool:
        """Whether it and all its workers can take requests."""
        workers = [worker for pool in self.pools().values() for worker in pool["workers"]]
        return self.client.get("/readyz").status_code == 200 and all(worker["state"] == "ready" for worker in workers)

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway exited with {self.process.returncode}:\n{self.log.read_text()}")
        for line in self.log_lines():
            if line.get("event") == "HTTP listens":
                self.port = int(line["url"].rpartition(":")[2])
            if line.get("event") == "gRPC listens":
                self.grpc_port = int(line["port"])
        return bool(self.port and self.grpc_port)


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Return when `condition` holds; fail when it doesn't in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
        time.sleep(0.01)


async def until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Return when `condition` holds; fail when it doesn't in time. Other tasks go on meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
        await asyncio.sleep(0.01)


@dataclass(slots=True)
class Story:
    """All that a reader of one run saw, in whatever format it came."""

    start: dict[str, Any] | None
    chunks: list[Any]
    numbers: list[int]
    end: dict[str, Any] | None


async def events_of(response: httpx.Response) -> AsyncIterator[ServerSentEvent]:
    """Yield a response's events as an independent SSE decoder reads them."""
    async for event in EventSource(response).aiter_sse():
        yield event


async def read_sse(response: httpx.Response) -> Story:
    story = Story(None, [], [], None)
    async for event in events_of(response):
        document = event.json()
        if event.event == "start":
            story.start = document
        elif event.event == "message":
            story.chunks.append(document)
            story.numbers.append(int(event.id.rpartition(".")[2]))
        elif event.event == "end":
            assert event.id.endswith(".end")
            story.end = document
    return story


async def read_ndjson(response: httpx.Response) -> Story:
    return story_of([json.loads(line) async for line in response.aiter_lines() if line])


def story_of(lines: list[dict[str, Any]]) -> Story:
    """Return the story that JSON lines tell."""
    chunks = [line for line in lines if "seq" in line]
    start = next((line["start"] for line in lines if "start" in line), None)
    end = next((line["end"] for line in lines if "end" in line), None)
    return Story(start, [line["data"] for line in chunks], [line["seq"] for line in chunks], end)


@contextlib.asynccontextmanager
async def bridge(gateway: Served) -> AsyncIterator[pb_grpc.BridgeServiceStub]:
    """A grpcio client of the gRPC front door."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        yield pb_grpc.BridgeServiceStub(channel)


def tool_request(session: str, tool: str, **arguments: Any) -> pb.ExecuteToolRequest:
    """A request as Snakepit's clients make it: each parameter is JSON in an Any."""
    request = pb.ExecuteToolRequest(session_id=session, tool_name=tool, stream=True)
    for name, value in arguments.items():
        request.parameters[name].CopyFrom(any_of(value))
    return request


def any_of(value: Any) -> Any:
    from google.protobuf.any_pb2 import Any as ProtobufAny

    return ProtobufAny(type_url=JSON_TYPE_URL, value=json.dumps(value).encode())


def rss_bytes(pid: int) -> int:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory: it is a zombie")


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@contextlib.contextmanager
def served(
    directory: Path,
    *arguments: str,
    settings: str = "",
    environment: Mapping[str, str] | None = None,
    ready: bool = True,
    packages: Path | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Served]:
    """A gateway for the time of a block; it has to stop well, unless the block has failed.

    `packages` is a folder with another build of it; None: the sources. `tls`: how its clients speak to it, where it has a certificate.
    """
    gateway = Served(directory, arguments, settings, environment or {}, packages, tls).start(ready=ready)
    try:
        yield gateway
        if gateway.process.poll() is None:
            gateway.stop()
    finally:
        gateway.kill()
