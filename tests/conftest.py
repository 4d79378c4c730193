"""A scriptable stand-in for a pool of workers, and the real server in front of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import orjson
import pytest
import structlog
from hypothesis import settings

from gateway import server
from gateway.app import Gateway, create_app
from gateway.call import ToolCall
from gateway.errors import Code, GatewayError, ToolFailed
from gateway.events import ChunkAttributes
from gateway.settings import (
    AuthSettings,
    LimitSettings,
    LogSettings,
    PoolSettings,
    RunLogSettings,
    ServerSettings,
    ServiceSettings,
    Settings,
)
from gateway.telemetry.tally import STOP_BOUNDS_S, STOP_CAUSES, Histogram
from gateway.workers.description import Tool
from gateway.workers.dispatch import Ticket
from gateway.workers.lease import LeaseHolder, LeaseRequest
from gateway.workers.toolstream import ToolEnd, ToolSink

TIMEOUT_S = 10.0

# Not structlog's default, which renders tracebacks for people, at seconds each.
structlog.configure(
    processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
    # What a command prints is looked at.
    logger_factory=structlog.PrintLoggerFactory(sys.__stderr__),
)
# No deadline: the machine may be busy with other things.
settings.register_profile("gateway", max_examples=60, deadline=None)
settings.load_profile("gateway")


async def until(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> None:
    """Wait for a condition that no event announces."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


class FakeCall:
    """One execution as the run sees it (a StreamCall), and the worker's side of it, which the test plays."""

    def __init__(
        self, call: ToolCall, run_id: str, timeout_s: float, sink: ToolSink, pool: FakePool, metadata: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.call = call
        self.run_id = run_id
        self.timeout_s = timeout_s
        self.sink = sink
        self.metadata = dict(metadata)
        self.paused = False
        self.pauses = 0
        self.cancelled = asyncio.Event()
        self._pool = pool
        self._over = False
        self._last_is_final = False

    # the run's side

    def pause_reading(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        if not self._over:
            self.cancelled.set()
            self._pool.loop.call_soon(self._finish, ToolEnd(None, cancelled=True))

    # the worker's side

    def send(self, *values: Any) -> None:
        """Deliver values as one batch of chunks."""
        self.send_raw(*map(orjson.dumps, values))

    def send_raw(self, *payloads: bytes, attributes: dict[int, ChunkAttributes] | None = None) -> None:
        """Deliver JSON texts as one batch; `attributes` by index."""
        if not self._over:
            last = (attributes or {}).get(len(payloads) - 1)
            self._last_is_final = last is not None and last.is_final
            self.sink.on_chunks(list(payloads), sum(map(len, payloads)), attributes)

    def end(self, metadata: Mapping[str, str] | None = None, *, has_final: bool = True) -> None:
        """End well: with an empty final where there is to be one and the last chunk is none."""
        marks = (ChunkAttributes(True, metadata or {}),) if has_final and not self._last_is_final else ()
        self._finish(ToolEnd(None, metadata or {}, has_final, marks))

    def fail(self, error: GatewayError | None = None) -> None:
        self._finish(ToolEnd(error or ToolFailed(Code.INVALID_ARGUMENT, "boom", error_type="ValueError", traceback="Traceback: boom")))

    def _finish(self, end: ToolEnd) -> None:
        if not self._over:
            self._over = True
            self._pool.in_flight -= 1
            self.sink.on_end(end)


class FakeLease:
    """A lease that makes a FakeCall."""

    def __init__(self, pool: FakePool) -> None:
        self.pool = pool.name
        self.worker_id = pool.worker_id
        self._pool = pool

    def execute(self, call: ToolCall, run_id: str, timeout_s: float, sink: ToolSink, metadata: Any = ()) -> FakeCall:
        fake = FakeCall(call, run_id, timeout_s, sink, self._pool, metadata)
        self._pool.in_flight += 1
        self._pool.began(fake)
        return fake


class FakeTicket(Ticket):
    """A place in the fake pool's queue; the test grants or refuses it."""

    depth = 0

    def __init__(self, pool: FakePool, holder: LeaseHolder, position: int) -> None:
        self.position = position
        self.depth = position
        self.holder = holder
        self.cancelled = asyncio.Event()
        # It waits no more, for whatever reason.
        self.is_over = False
        self._pool = pool

    def cancel(self) -> None:
        self.is_over = True
        self.cancelled.set()

    def grant(self) -> None:
        self.is_over = True
        self.holder.on_lease(FakeLease(self._pool))  # type: ignore[arg-type]

    def refuse(self, error: GatewayError) -> None:
        self.is_over = True
        self.holder.on_refused(error)


TYPED_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "whole": {"type": "integer"},
        "real": {"type": "number"},
        "flag": {"type": "boolean"},
        "text": {"type": "string"},
        "numbers": {"type": "array", "items": {"type": "integer"}},
        "names": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "level": {"enum": ["low", "high"]},
        "size": {"$ref": "#/$defs/Size"},
        "options": {"type": "object"},
        "any": {},
    },
    "$defs": {"Size": {"enum": [1, 2, 3]}},
    "additionalProperties": False,
}
COUNT_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"count": {"type": "integer"}}, "additionalProperties": False}
ADD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def fake_tools(pool: str) -> dict[str, Tool]:
    tools = (
        Tool("count", pool, "Count", True, COUNT_SCHEMA),
        Tool("typed", pool, "Take every type", True, TYPED_SCHEMA),
        Tool("add", pool, "Add", False, ADD_SCHEMA),
        Tool("opaque", pool),
    )
    return {tool.name: tool for tool in tools}


@dataclass(eq=False)
class FakePool:
    """What a Pool is to runs/, endpoints/ and bridge/. `busy`: requests queue. `refusal`: they are refused at once."""

    name: str = "default"
    kind: str = "addresses"
    worker_id: str = "w-1"
    tools: dict[str, Tool] = field(default_factory=dict)
    busy: bool = False
    refusal: GatewayError | None = None
    idle_timeout_s: float | None = None
    silence: str = ""
    reasons: list[str] = field(default_factory=list)
    # Plays the worker for each call, right after it began; None: the test does, by `next_call`.
    script: Callable[[FakeCall], None] | None = None
    in_flight: int = 0
    requests: list[LeaseRequest] = field(default_factory=list)
    calls: list[FakeCall] = field(default_factory=list)
    tickets: list[FakeTicket] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stops = {cause: Histogram(STOP_BOUNDS_S) for cause in STOP_CAUSES}
        self.tools = self.tools or fake_tools(self.name)
        self.loop = asyncio.get_running_loop()
        self._new_calls: asyncio.Queue[FakeCall] = asyncio.Queue()
        self._new_tickets: asyncio.Queue[FakeTicket] = asyncio.Queue()

    def acquire(self, request: LeaseRequest, holder: LeaseHolder) -> FakeLease | FakeTicket:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        if not self.busy:
            return FakeLease(self)
        ticket = FakeTicket(self, holder, len(self.tickets) + 1)
        self.tickets.append(ticket)
        self._new_tickets.put_nowait(ticket)
        return ticket

    async def started(self) -> None:
        """Return at once: its worker is there."""

    def began(self, call: FakeCall) -> None:
        self.calls.append(call)
        self._new_calls.put_nowait(call)
        if self.script is not None:
            self.loop.call_soon(self.script, call)

    async def next_call(self) -> FakeCall:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._new_calls.get()

    def forget_calls(self) -> None:
        """Let go of all that it was asked for so far."""
        self.requests.clear()
        self.calls.clear()
        while not self._new_calls.empty():
            self._new_calls.get_nowait()

    async def next_ticket(self) -> FakeTicket:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._new_tickets.get()

    def readiness(self) -> list[str]:
        return self.reasons

    def snapshot(self) -> dict[str, Any]:
        worker = {
            "id": self.worker_id,
            "state": "ready",
            "in_flight": self.in_flight,
            "concurrency": 1,
            "restarts": 0,
            "address": "unix:/w",
        }
        queued = sum(not ticket.is_over for ticket in self.tickets)
        entry = {"name": self.name, "kind": self.kind, "queued": queued, "in_flight": self.in_flight, "stuck": 0}
        return {**entry, "workers": [worker]}

    def forget_session(self, session_id: str) -> None:
        self.forgotten.append(session_id)

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def drain(self, deadline_s: float) -> None:
        pass


@dataclass(frozen=True)
class Running:
    """A gateway that serves over real sockets, with a fake pool behind it."""

    gateway: Gateway
    pool: FakePool
    pools: Mapping[str, FakePool]
    http: server.Server
    port: int
    client: httpx.AsyncClient
    app: Any

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def open_runs(self) -> int:
        return self.gateway.hub.open_runs


Serve = Callable[..., AbstractAsyncContextManager[Running]]


class QuickAsyncio:
    """asyncio as uvicorn's server sees it here: it looks at its flags every few ms, not ten times a second."""

    @staticmethod
    async def sleep(delay: float) -> None:
        await asyncio.sleep(min(delay, 0.005))

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve with these settings, of `[server]` where no section is named: `async with serve(heartbeat_s=0.05) as running`."""
    monkeypatch.setattr("uvicorn.server.asyncio", QuickAsyncio())

    @asynccontextmanager
    async def serving(
        *,
        pools: Mapping[str, FakePool] | None = None,
        runlog: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        log: Mapping[str, Any] | None = None,
        auth: Mapping[str, Any] | None = None,
        services: Sequence[Mapping[str, Any]] = (),
        transport: Literal["lane", "grpcio"] = "lane",
        **options: Any,
    ) -> AsyncIterator[Running]:
        fakes = dict(pools or {"default": FakePool()})
        monkeypatch.setattr("gateway.app.Pool", lambda options, connect, **_: fakes[options.name])
        # Requests on bare connections call it `test`.
        values = {"grpc_address": "", "drain_timeout_s": 0.0, "allowed_hosts": ("test",), **options}
        configured = tuple(PoolSettings(name=name, addresses=("unix:/nowhere",)) for name in fakes)
        kept, limited, logged = RunLogSettings(**(runlog or {})), LimitSettings(**(limits or {})), LogSettings(**(log or {}))
        known = AuthSettings(**(auth or {}))
        served = tuple(ServiceSettings(**service) for service in services)
        settings = Settings(
            server=ServerSettings(**values),
            auth=known,
            runlog=kept,
            limits=limited,
            log=logged,
            pools=configured,
            services=served,
            transport=transport,
        )
        gateway = Gateway(settings)
        app = create_app(gateway=gateway)
        tls = None if gateway.certificates is None else gateway.certificates.context
        http = server.build(app, drain=gateway.drain_runs, limits=gateway.connection_limits, tls=tls)
        sock = server.bind("127.0.0.1", 0)
        port = sock.getsockname()[1]
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(http.serve([sock]))
            await until(lambda: http.started or serving.done())
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, trust_env=False) as client:
                    yield Running(gateway, next(iter(fakes.values())), fakes, http, port, client, app)
            finally:
                http.should_exit = True
                async with asyncio.timeout(TIMEOUT_S):
                    await serving

    return serving


@pytest.fixture
async def running(serve: Serve) -> AsyncIterator[Running]:
    """The gateway with its defaults, but a shorter hold of the status line."""
    async with serve(first_byte_hold_s=0.3) as gateway:
        yield gateway


async def within(awaitable: Awaitable[Any], timeout_s: float = TIMEOUT_S) -> Any:
    """Return what is awaited, which has to come in time."""
    async with asyncio.timeout(timeout_s):
        return await awaitable
