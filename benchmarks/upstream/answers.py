"""The upstream's unary calls: it says who it is, as the gateway's own workers do, with answers made once.

It offers no batches (StreamTool), so the gateway is served what its peers are served: a message for each chunk.
"""

from __future__ import annotations

import json

from benchmarks.plan import TOOL
from benchmarks.upstream.execution import prefixed
from gateway.rpc.snakepit_bridge_pb2 import PingResponse
from gateway.rpc.worker_pb2 import AwaitStopResponse, ToolDescription, WorkerDescription

_PARAMETERS = {
    "type": "object",
    "properties": {
        "count": {"type": "integer"},
        "size": {"type": "integer", "minimum": 32},
        "interval_us": {"type": "integer", "minimum": 0},
        "hold": {"type": "boolean"},
        "key": {"type": "string"},
    },
    "required": ["count", "size", "interval_us", "hold", "key"],
    "additionalProperties": False,
}
_DESCRIPTION = WorkerDescription(
    worker_id="bench",
    concurrency=10_000,
    tools=[ToolDescription(name=TOOL, supports_streaming=True, parameters_schema=json.dumps(_PARAMETERS))],
)

# Path -> gRPC message.
ANSWERS = {
    b"/snakepit.bridge.BridgeService/Ping": prefixed(PingResponse(message="pong").SerializeToString()),
    b"/gateway.rpc.WorkerService/Describe": prefixed(_DESCRIPTION.SerializeToString()),
    b"/gateway.rpc.WorkerService/AwaitStop": prefixed(AwaitStopResponse(stopped=True).SerializeToString()),
}
