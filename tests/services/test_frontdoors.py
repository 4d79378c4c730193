"""Methods by the other ways to runs: the gRPC front door, which names them as it names tools."""

from __future__ import annotations

import grpc.aio
import orjson
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest, InitializeSessionRequest
from gateway.rpc.snakepit_bridge_pb2_grpc import BridgeServiceStub
from tests.conftest import Serve, until
from tests.services import library

COUNT = "test.library.v1.Library/Count"


def value(of: object) -> AnyMessage:
    return AnyMessage(type_url="type.googleapis.com/google.protobuf.StringValue", value=orjson.dumps(of))


async def test_the_grpc_front_door(serve: Serve, library_server: library.Server, tmp_path: object) -> None:
    address = f"unix:{tmp_path}/bridge.sock"
    service = {"name": "library", "address": library_server.address}
    async with serve(services=[service], grpc_address=address) as running, grpc.aio.insecure_channel(address) as channel:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        stub = BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
        await stub.InitializeSession(InitializeSessionRequest(session_id="s"))
        request = ExecuteToolRequest(session_id="s", tool_name=COUNT, parameters={"to": value(2)})
        chunks = [chunk async for chunk in stub.ExecuteStreamingTool(request)]
        assert [orjson.loads(chunk.data) for chunk in chunks if chunk.data] == [{"number": 1}, {"number": 2}]
        wrong = ExecuteToolRequest(session_id="s", tool_name=COUNT, parameters={"too": value(2)})
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [chunk async for chunk in stub.ExecuteStreamingTool(wrong)]
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(library_server.library.seen) == 1
