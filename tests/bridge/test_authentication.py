"""Who calls over gRPC: by metadata, before the service sees the call; what is another caller's is not there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gateway.auth.authenticator import Authenticator
from gateway.auth.keys import KeyRing, read_keys
from gateway.bridge.authentication import CallerInterceptor
from gateway.bridge.server import BridgeServer
from gateway.bridge.service import BridgeService
from gateway.caller import Caller
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.runs.hub import Hub, HubLimits
from gateway.sessions import Sessions
from gateway.workers.catalog import Catalog
from tests.bridge.conftest import Connected
from tests.conftest import FakeCall, FakePool, within
from tests.endpoints.people import ADA, BOB, EVE, PEOPLE, Person


class Guarded(Connected):
    """A bridge that knows the people, and a stub for it."""

    def __init__(self, authenticator: Authenticator) -> None:
        self.pool = FakePool()
        self.hub = Hub(Catalog([self.pool]), {"default": self.pool}, HubLimits())  # type: ignore[list-item, dict-item]
        self.server = BridgeServer(BridgeService(self.hub, Sessions()), "127.0.0.1:0", interceptors=[CallerInterceptor(authenticator)])

    async def open_session(self, person: Person, session_id: str = "s") -> None:
        await self.stub.InitializeSession(pb.InitializeSessionRequest(session_id=session_id), metadata=by(person))

    async def stream(self, person: Person, tool: str = "count") -> list[bytes]:
        request = pb.ExecuteToolRequest(session_id="s", tool_name=tool, stream=True)
        return [chunk.data async for chunk in self.stub.ExecuteStreamingTool(request, metadata=by(person))]


def by(person: Person) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {person.key}"),)


def three(call: FakeCall) -> None:
    call.send(1, 2)
    call.end()


@asynccontextmanager
async def serve(authenticator: Authenticator) -> AsyncIterator[Guarded]:
    bridge = Guarded(authenticator)
    bridge.pool.script = three
    async with bridge.connected():
        yield bridge


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    async with serve(Authenticator(KeyRing(read_keys("\n".join(person.line for person in PEOPLE))))) as bridge:
        yield bridge


async def served(call: Any) -> None:
    """Return when a call of either kind has ended well."""
    if hasattr(call, "__aiter__"):
        async for _ in call:
            pass
    else:
        await call


async def status(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served(call)
    for person in PEOPLE:
        assert person.key not in str(caught.value)
    return caught.value.code()


METADATA: list[tuple[Any, grpc.StatusCode]] = [
    (None, grpc.StatusCode.UNAUTHENTICATED),
    ((("authorization", "Bearer gw_wrong"),), grpc.StatusCode.UNAUTHENTICATED),
    ((("authorization", ADA.key),), grpc.StatusCode.UNAUTHENTICATED),
    ((("authorization", "Basic YTpi"),), grpc.StatusCode.UNAUTHENTICATED),
    ((*by(ADA), *by(BOB)), grpc.StatusCode.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("metadata", "code"), METADATA)
async def test_calls_of_every_kind_are_refused_without_a_good_credential(guarded: Guarded, metadata: Any, code: grpc.StatusCode) -> None:
    stub = guarded.stub
    assert await status(stub.Ping(pb.PingRequest(), metadata=metadata)) is code
    assert await status(stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"), metadata=metadata)) is code
    request = pb.ExecuteToolRequest(session_id="s", tool_name="count")
    assert await status(stub.ExecuteTool(request, metadata=metadata)) is code
    assert await status(stub.ExecuteStreamingTool(request, metadata=metadata)) is code
    assert await status(stub.StreamTelemetry(iter([pb.TelemetryControl()]), metadata=metadata)) is code
    assert guarded.pool.calls == []


async def test_a_key_lets_its_caller_in(guarded: Guarded) -> None:
    await guarded.open_session(ADA)
    assert await guarded.stream(ADA) == [b"1", b"2", b""]
    assert guarded.pool.calls[0].call.caller.id == "key:ada"


async def test_two_callers_at_once_are_told_apart(guarded: Guarded) -> None:
    for person in (ADA, BOB):
        await guarded.open_session(person)
        await guarded.stream(person)
    first, second = (call.call for call in guarded.pool.calls)
    assert [first.caller.id, second.caller.id] == ["key:ada", "key:bob"]
    # One name, two sessions, for workers as well.
    assert first.session_id != second.session_id


async def test_a_session_of_another_caller_is_not_there(guarded: Guarded) -> None:
    await guarded.open_session(ADA)
    stub = guarded.stub
    assert await status(stub.GetSession(pb.GetSessionRequest(session_id="s"), metadata=by(BOB))) is grpc.StatusCode.NOT_FOUND
    request = pb.ExecuteToolRequest(session_id="s", tool_name="count")
    assert await status(stub.ExecuteStreamingTool(request, metadata=by(BOB))) is grpc.StatusCode.NOT_FOUND
    assert (await stub.ExecuteTool(request, metadata=by(BOB))).success is False
    assert (await stub.Heartbeat(pb.HeartbeatRequest(session_id="s"), metadata=by(BOB))).session_valid is False
    await stub.CleanupSession(pb.CleanupSessionRequest(session_id="s"), metadata=by(BOB))
    assert (await stub.Heartbeat(pb.HeartbeatRequest(session_id="s"), metadata=by(ADA))).session_valid is True
    assert guarded.pool.calls == []


async def test_a_tool_out_of_reach_is_permission_denied(guarded: Guarded) -> None:
    await guarded.open_session(EVE)
    request = pb.ExecuteToolRequest(session_id="s", tool_name="count")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in guarded.stub.ExecuteStreamingTool(request, metadata=by(EVE)):
            pass
    assert (caught.value.code(), "tools:count" in (caught.value.details() or "")) == (grpc.StatusCode.PERMISSION_DENIED, True)


async def test_health_and_reflection_are_open(guarded: Guarded) -> None:
    health = health_pb2_grpc.HealthStub(guarded.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(guarded.channel)
    answers = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    assert (await answers.read()).list_services_response.service


class Brief(Authenticator):
    """Lets everybody in, for a moment."""

    async def check(self, credential: str) -> Caller:
        return Caller("jwt:ada", expires_at=time.time() + 0.3)


async def test_a_stream_ends_unauthenticated_when_its_credential_expires() -> None:
    async with serve(Brief(KeyRing())) as bridge:
        bridge.pool.script = lambda call: call.send(1)
        await bridge.open_session(ADA)
        request = pb.ExecuteToolRequest(session_id="s", tool_name="count")
        assert await status(bridge.stub.ExecuteStreamingTool(request, metadata=by(ADA))) is grpc.StatusCode.UNAUTHENTICATED


async def test_telemetry_ends_unauthenticated_when_its_credential_expires() -> None:
    async with serve(Brief(KeyRing())) as bridge:
        call = bridge.stub.StreamTelemetry(metadata=by(ADA))
        await call.write(pb.TelemetryControl())
        assert await within(status(call)) is grpc.StatusCode.UNAUTHENTICATED
