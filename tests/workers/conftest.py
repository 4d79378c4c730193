"""Stand-ins for the transport and the clock, and the real transport for tests with processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.errors import Code, GatewayError
from gateway.events import ChunkAttributes
from gateway.rpc.worker_pb2 import AwaitStopRequest, AwaitStopResponse, ToolDescription, WorkerDescription
from gateway.transport import open_transport
from gateway.transport.base import CallFailed, CallStatus, Channel, Metadata, StreamSink
from gateway.workers.description import AWAIT_STOP, DESCRIBE, Description, Tool
from gateway.workers.dialect import PING, WorkerDialect
from gateway.workers.lease import Lease
from gateway.workers.options import PoolOptions
from gateway.workers.toolstream import ToolEnd
from gateway.workers.worker import Worker


class ManualClock:
    """A scheduler whose time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[ManualTimer] = []

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> ManualTimer:
        timer = ManualTimer(self.now + delay, lambda: callback(*args))
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self._timers if timer.when <= end and not timer.cancelled]:
            timer = min(due, key=lambda timer: timer.when)
            self.now = timer.when
            self._timers.remove(timer)
            timer.callback()
        self.now = end
        self._timers = [timer for timer in self._timers if not timer.cancelled]

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for timer in self._timers)


@dataclass(eq=False)
class ManualTimer:
    when: float
    callback: Callable[[], Any]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeCall:
    """What a test sees of a call that was opened, and the peer's side of it."""

    method: str
    request: bytes
    sink: StreamSink
    timeout_s: float | None
    metadata: Metadata
    cancelled: bool = False
    paused: bool = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        self.cancelled = True

    def end(self, code: Code = Code.OK, message: str = "", *, connection_lost: bool = False) -> None:
        self.sink.on_close(CallStatus(code, message, connection_lost=connection_lost))


class FakeChannel:
    """A Channel whose peer is the test. `answers` maps a method to what a unary call gets: bytes, or the status it fails with."""

    def __init__(self, address: str = "unix:/fake") -> None:
        self.address = address
        self.calls: list[FakeCall] = []
        self.answers: dict[str, bytes | CallStatus] = {}
        self.stops: dict[str, asyncio.Future[bool]] = {}
        self.closed = False

    def describes(self, *tools: str, concurrency: int = 1) -> FakeChannel:
        described = [ToolDescription(name=name, supports_streaming=True, parameters_schema='{"type":"object"}') for name in tools]
        self.answers[DESCRIBE] = WorkerDescription(
            worker_id="w", concurrency=concurrency, tools=described, batches=True
        ).SerializeToString()
        return self

    def open_stream(
        self, method: str, request: bytes, sink: StreamSink, *, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> FakeCall:
        call = FakeCall(method, request, sink, timeout_s, metadata)
        self.calls.append(call)
        return call

    async def unary(self, method: str, request: bytes, *, timeout_s: float, metadata: Metadata = ()) -> bytes:
        if method == AWAIT_STOP:
            run_id = AwaitStopRequest.FromString(request).run_id
            future = self.stops.setdefault(run_id, asyncio.get_running_loop().create_future())
            stopped = await asyncio.shield(future)
            del self.stops[run_id]
            return AwaitStopResponse(stopped=stopped).SerializeToString()
        default: bytes | CallStatus = b"" if method == PING else CallStatus(Code.UNIMPLEMENTED)
        answer = self.answers.get(method, default)
        if isinstance(answer, CallStatus):
            raise CallFailed(answer)
        return answer

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class Holder:
    """A LeaseHolder that writes down what it hears."""

    leases: list[Lease] = field(default_factory=list)
    refusals: list[GatewayError] = field(default_factory=list)
    positions: list[tuple[int, int]] = field(default_factory=list)
    leased: asyncio.Event = field(default_factory=asyncio.Event)

    def on_lease(self, lease: Lease) -> None:
        self.leases.append(lease)
        self.leased.set()

    def on_refused(self, error: GatewayError) -> None:
        self.refusals.append(error)
        self.leased.set()

    def on_position(self, position: int, depth: int) -> None:
        self.positions.append((position, depth))


@dataclass
class Sink:
    """A ToolSink that keeps everything."""

    batches: list[list[bytes]] = field(default_factory=list)
    attributes: dict[int, ChunkAttributes] = field(default_factory=dict)
    ends: list[ToolEnd] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    def on_chunks(self, payloads: list[bytes], size_bytes: int, attributes: dict[int, ChunkAttributes] | None) -> None:
        assert size_bytes == sum(map(len, payloads))
        assert payloads
        before = len(self.payloads)
        self.attributes |= {before + index: entry for index, entry in (attributes or {}).items()}
        self.batches.append(payloads)
        self.first.set()

    def on_end(self, end: ToolEnd) -> None:
        self.ends.append(end)
        self.ended.set()

    @property
    def payloads(self) -> list[bytes]:
        return [payload for batch in self.batches for payload in batch]

    @property
    def end(self) -> ToolEnd:
        (end,) = self.ends
        return end


def starting_worker(worker_id: str = "p-1", *, trusts_json: bool = True, **options: Any) -> Worker:
    """A worker that has not answered yet."""
    pool = PoolOptions("p", adapter="a:A", payload="json" if trusts_json else "auto")
    return Worker(worker_id, WorkerDialect(pool, worker_id), **options)


def ready_worker(
    worker_id: str = "p-1",
    *tools: str,
    concurrency: int = 1,
    channel: FakeChannel | None = None,
    batches: bool = True,
    described: bool = True,
    trusts_json: bool = True,
    **options: Any,
) -> Worker:
    """A worker in service, without a process."""
    worker = starting_worker(worker_id, trusts_json=trusts_json, **options)
    offered = {name: Tool(name, "p") for name in tools}
    worker.enter_service(channel or FakeChannel(), Description(concurrency, offered, batches, is_described=described))
    return worker


async def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Wait for a condition that no event announces."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[str], Channel]]:
    async with asyncio.TaskGroup() as tasks:
        yield open_transport("lane", tasks).connect
