"""A gateway as everybody writes it first: FastAPI, sse-starlette and grpc.aio. `python -m benchmarks.peers.naive PORT UPSTREAM_PORT`.

Kept as plain as such programs are: one route, one generator, one channel, every chunk awaited and sent for itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import uvicorn
from fastapi import FastAPI
from google.protobuf.any_pb2 import Any as AnyMessage
from sse_starlette import EventSourceResponse

from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest
from gateway.rpc.snakepit_bridge_pb2_grpc import BridgeServiceStub


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{sys.argv[2]}") as channel:
        app.state.stub = BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/tools/{tool}/stream")
async def stream(tool: str, arguments: dict[str, Any]) -> EventSourceResponse:
    parameters = {name: AnyMessage(value=json.dumps(value).encode()) for name, value in arguments.items()}
    request = ExecuteToolRequest(tool_name=tool, parameters=parameters, stream=True)

    async def events() -> AsyncIterator[dict[str, str]]:
        try:
            async for chunk in app.state.stub.ExecuteStreamingTool(request):
                if chunk.data:
                    yield {"event": "chunk", "id": chunk.chunk_id, "data": chunk.data.decode()}
                if chunk.is_final:
                    break
        except grpc.aio.AioRpcError as exc:
            yield {"event": "error", "data": json.dumps({"code": exc.code().name, "detail": exc.details()})}

    # No pings: they would be counted as events.
    return EventSourceResponse(events(), ping=3600)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, backlog=4096)
