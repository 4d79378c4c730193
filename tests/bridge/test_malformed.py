"""Bytes that are no message of the method's type, for every kind of method."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.bridge.test_service import Bridge, bridge, request

__all__ = ["bridge"]

BRIDGE = "/snakepit.bridge.BridgeService"
REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, "The request is not a message of the method's type")


@pytest.mark.parametrize("method", [f"{BRIDGE}/Ping", f"{BRIDGE}/ExecuteTool", "/grpc.health.v1.Health/Check"])
@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05a", b"\x0a\x01\xff"], ids=["no tag", "cut", "not UTF-8"])
async def test_a_malformed_request_is_an_invalid_argument(
    bridge: Bridge, method: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bridge.channel.unary_unary(method)(data)
    assert (caught.value.code(), caught.value.details()) == REFUSED
    assert caplog.records == []


@pytest.mark.parametrize("method", [f"{BRIDGE}/ExecuteStreamingTool", "/grpc.health.v1.Health/Watch"])
async def test_a_malformed_request_for_a_stream_is_an_invalid_argument(
    bridge: Bridge, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    call = bridge.channel.unary_stream(method)(b"\x0a\x05a")
    assert (await call.code(), await call.details()) == REFUSED
    assert caplog.records == []


async def test_a_method_that_writes_its_answers_itself_streams(bridge: Bridge) -> None:
    """As grpc.health's Watch does, where those of ours yield."""
    watch = health_pb2_grpc.HealthStub(bridge.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_a_malformed_message_in_a_stream_of_requests_ends_it(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    async def requests() -> AsyncIterator[bytes]:
        yield pb.TelemetryControl().SerializeToString()
        yield b"\xff"

    call = bridge.channel.stream_stream(f"{BRIDGE}/StreamTelemetry")(requests())
    assert (await call.code(), await call.details()) == REFUSED
    assert caplog.records == []


async def test_an_unknown_method_stays_unimplemented(bridge: Bridge) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bridge.channel.unary_unary(f"{BRIDGE}/Nothing")(b"\xff")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_client_that_leaves_a_stream_still_cancels_its_run(bridge: Bridge) -> None:
    await bridge.open_session()
    stream = bridge.stub.ExecuteStreamingTool(request())
    call = await bridge.pool.next_call()
    call.send(1)
    await anext(aiter(stream))
    stream.cancel()
    async with asyncio.timeout(10):
        await call.cancelled.wait()
