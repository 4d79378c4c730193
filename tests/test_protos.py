from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.rpc import snakepit_bridge_pb2 as pb

ROOT = Path(__file__).resolve().parent.parent

# Snakepit v0.13's wire contract; a changed number would speak to nobody.
FIELDS = {
    "ExecuteToolRequest": {"session_id": 1, "tool_name": 2, "parameters": 3, "metadata": 4, "stream": 5, "binary_parameters": 6},
    "ExecuteToolResponse": {"success": 1, "result": 2, "error_message": 3, "metadata": 4, "execution_time_ms": 5, "binary_result": 6},
    "ToolChunk": {"chunk_id": 1, "data": 2, "is_final": 3, "metadata": 4},
    "PingRequest": {"message": 1},
    "PingResponse": {"message": 1, "server_time": 2},
    "InitializeSessionRequest": {"session_id": 1, "metadata": 2, "config": 3},
    "InitializeSessionResponse": {"success": 1, "error_message": 2, "available_tools": 3},
    "CleanupSessionRequest": {"session_id": 1, "force": 2},
    "CleanupSessionResponse": {"success": 1, "resources_cleaned": 2},
    "GetSessionRequest": {"session_id": 1},
    "GetSessionResponse": {"session_id": 1, "metadata": 2, "created_at": 3, "tool_count": 4},
    "HeartbeatRequest": {"session_id": 1, "client_time": 2},
    "HeartbeatResponse": {"server_time": 1, "session_valid": 2},
    "RegisterToolsRequest": {"session_id": 1, "tools": 2, "worker_id": 3},
    "RegisterToolsResponse": {"success": 1, "tool_ids": 2, "error_message": 3},
    "ToolRegistration": {"name": 1, "description": 2, "parameters": 3, "metadata": 4, "supports_streaming": 5},
}
METHODS = {
    "Ping",
    "InitializeSession",
    "CleanupSession",
    "GetSession",
    "Heartbeat",
    "ExecuteTool",
    "ExecuteStreamingTool",
    "RegisterTools",
    "GetExposedElixirTools",
    "ExecuteElixirTool",
    "StreamTelemetry",
}


def test_generated_code_is_current() -> None:
    check = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_protos.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.parametrize("message", FIELDS)
def test_field_numbers_are_snakepits(message: str) -> None:
    descriptor = pb.DESCRIPTOR.message_types_by_name[message]
    assert {field.name: field.number for field in descriptor.fields} == FIELDS[message]


def test_service_is_snakepits() -> None:
    service = pb.DESCRIPTOR.services_by_name["BridgeService"]
    assert (pb.DESCRIPTOR.name, service.full_name) == ("snakepit_bridge.proto", "snakepit.bridge.BridgeService")
    assert set(service.methods_by_name) == METHODS
    streams = {name for name, method in service.methods_by_name.items() if method.server_streaming}
    assert streams == {"ExecuteStreamingTool", "StreamTelemetry"}
