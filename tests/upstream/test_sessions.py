"""The pool's sessions in a BridgeServer: how many, how long, what becomes of those who wait for one. The server is a fake channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.errors import Code, GatewayError
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.transport.base import CallFailed, CallStatus, Metadata
from gateway.workers import upstreamsessions
from gateway.workers.options import PoolOptions
from gateway.workers.upstreamsessions import UpstreamSession, UpstreamSessions
from tests.conftest import until

OPTIONS = PoolOptions("p", "bridge", addresses=("x",), tools=("a", "b"), worker_id="w")


class Server:
    """A channel to a BridgeServer of which only its sessions are there."""

    address = "x:1"

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.failure: CallFailed | None = None
        self.registration = pb.RegisterToolsResponse(success=True)
        self.open = asyncio.Event()
        self.open.set()

    async def unary(self, method: str, request: bytes, *, timeout_s: float, metadata: Metadata = ()) -> bytes:
        name = method.rpartition("/")[2]
        said = getattr(pb, f"{name}Request").FromString(request)
        self.calls.append((name, said.session_id))
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        answer: Any
        match name:
            case "InitializeSession":
                self.sessions.add(said.session_id)
                answer = pb.InitializeSessionResponse(success=True)
            case "RegisterTools":
                answer = self.registration
            case "CleanupSession":
                self.sessions.discard(said.session_id)
                answer = pb.CleanupSessionResponse(success=True)
            case _:
                answer = pb.HeartbeatResponse(session_valid=said.session_id in self.sessions)
        return answer.SerializeToString()  # type: ignore[no-any-return]

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)


@asynccontextmanager
async def attended(server: Server) -> AsyncIterator[UpstreamSessions]:
    sessions = UpstreamSessions(OPTIONS, "the BridgeServer of p-1")
    async with asyncio.TaskGroup() as tasks:
        sessions.attend(server, tasks)  # type: ignore[arg-type]
        try:
            yield sessions
        finally:
            sessions.detach()


@pytest.fixture
def server() -> Server:
    return Server()


async def take(sessions: UpstreamSessions, session_id: str) -> UpstreamSession:
    """Take a session and wait for it.

    Raises:
        GatewayError: it can't be opened.
    """
    told: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()
    session = sessions.take(session_id, told.set_result)
    if session.is_open:
        told.set_result(None)
    if (error := await told) is not None:
        sessions.release(session)
        raise error
    return session


async def test_those_that_are_used_are_kept_alive_and_others_are_not(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreamsessions, "HEARTBEAT_S", 0.02)
    async with attended(server) as sessions:
        held = await take(sessions, "held")
        sessions.release(await take(sessions, "idle"))
        await until(lambda: server.calls.count(("Heartbeat", "held")) >= 3)
        # Used since the last beat: once more, then no more.
        assert server.calls.count(("Heartbeat", "idle")) == 1
        sessions.release(held)


async def test_one_that_a_heartbeat_does_not_find_is_opened_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreamsessions, "HEARTBEAT_S", 0.02)
    async with attended(server) as sessions:
        session = await take(sessions, "s")
        server.sessions.clear()
        await until(lambda: not session.is_open)
        await take(sessions, "s")
        assert (server.sessions, server.count("InitializeSession")) == ({"s"}, 2)


async def test_beyond_the_limit_the_idle_one_of_longest_ago_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreamsessions, "SESSION_LIMIT", 3)
    async with attended(server) as sessions:
        await take(sessions, "held")
        for number in range(10):
            sessions.release(await take(sessions, f"s{number}"))
        assert len(sessions) == 3
        await until(lambda: server.sessions == {"held", "s8", "s9"})


async def test_one_that_is_over_is_ended_with_its_last_call(server: Server) -> None:
    async with attended(server) as sessions:
        session = await take(sessions, "s")
        sessions.over("s")
        assert server.count("CleanupSession") == 0
        sessions.release(session)
        await until(lambda: server.sessions == set())
        assert len(sessions) == 0


async def test_who_waits_for_one_hears_that_the_connection_is_lost(server: Server) -> None:
    server.open.clear()
    async with attended(server) as sessions:
        waiting = asyncio.create_task(take(sessions, "s"))
        await until(lambda: server.count("InitializeSession") == 1)
    with pytest.raises(GatewayError) as caught:
        await waiting
    assert caught.value.problem == "worker-lost"
    with pytest.raises(GatewayError):
        await take(sessions, "later")


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (CallStatus(Code.UNAVAILABLE, "connection refused", connection_lost=True), "worker-lost"),
        (CallStatus(Code.DEADLINE_EXCEEDED), "worker-lost"),
        (CallStatus(Code.INTERNAL, "session_quota_exceeded"), "pool-saturated"),
        (CallStatus(Code.UNAUTHENTICATED, "who are you?"), "no-workers-available"),
    ],
)
async def test_one_that_cannot_be_opened_says_why(server: Server, status: CallStatus, problem: str) -> None:
    server.failure = CallFailed(status)
    async with attended(server) as sessions:
        with pytest.raises(GatewayError) as caught:
            await take(sessions, "s")
        assert (caught.value.problem, "the BridgeServer of p-1" in caught.value.detail) == (problem, True)
        server.failure = None
        assert (await take(sessions, "s")).is_open


async def test_tools_that_are_refused_are_said(server: Server) -> None:
    server.registration = pb.RegisterToolsResponse(success=False, error_message='{:invalid_tool_name, "a"}')
    async with attended(server) as sessions:
        with pytest.raises(GatewayError, match="does not register the pool's tools"):
            await take(sessions, "s")


async def test_tools_that_are_there_from_before_are_registered_one_by_one(server: Server) -> None:
    server.registration = pb.RegisterToolsResponse(success=False, error_message='{:duplicate_tool, "a"}')
    async with attended(server) as sessions:
        assert (await take(sessions, "s")).is_open
    assert server.count("RegisterTools") == 1 + len(OPTIONS.tools)


async def test_all_are_ended_in_bounded_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreamsessions, "END_TIMEOUT_S", 0.05)
    async with attended(server) as sessions:
        for name in ("a", "b"):
            await take(sessions, name)
    await sessions.end_all(server)  # type: ignore[arg-type]
    assert server.sessions == set()
    async with attended(server) as sessions:
        await take(sessions, "c")
    server.open.clear()
    await asyncio.wait_for(sessions.end_all(server), 5)  # type: ignore[arg-type]
