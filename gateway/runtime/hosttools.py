"""The host's own tools as a worker's code calls them: gRPC's blocking client, since it is called from a tool's thread.

The host is Snakepit's (host.py made this) or the gateway that started the worker, which is asked for nothing but these
(`--host-tools-address`): no session, no heartbeat, and no connection before a tool asks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import any_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc
from gateway.runtime import payload
from gateway.runtime.limits import MESSAGE_LIMIT_BYTES, METADATA_LIMIT_BYTES

logger = logging.getLogger(__name__)

_LIST_TIMEOUT_S = 10.0
_TOOL_TIMEOUT_S = 300.0
_TEXT_URL = "type.googleapis.com/google.protobuf.StringValue"
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_LIMIT_BYTES),
    # A host on a loopback port of its own is always there first; the default of 20 s would outlast it.
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class RemoteHostTools:
    """See session.HostTools. The channel is made at the first use."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.Channel | None = None

    def exposed(self, session_id: str) -> dict[str, Any]:
        try:
            answer = self._stub().GetExposedElixirTools(bridge.GetExposedElixirToolsRequest(session_id=session_id), timeout=_LIST_TIMEOUT_S)
        except grpc.RpcError as error:
            logger.warning("the host's tools can't be listed: %s", said(error))
            return {}
        return {tool.name: MessageToDict(tool, preserving_proto_field_name=True) for tool in answer.tools}

    def execute(self, session_id: str, name: str, arguments: Mapping[str, Any], timeout_s: float | None) -> Any:
        parameters = {key: any_pb2.Any(type_url=_TEXT_URL, value=payload.encode(value)) for key, value in arguments.items()}
        request = bridge.ExecuteElixirToolRequest(session_id=session_id, tool_name=name, parameters=parameters)
        try:
            answer = self._stub().ExecuteElixirTool(request, timeout=_TOOL_TIMEOUT_S if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise RuntimeError(f"the host's tool {name} can't be called: {said(error)}") from error
        if not answer.success:
            raise RuntimeError(f"the host's tool {name} failed: {answer.error_message}")
        structure = struct_pb2.Struct()
        if answer.result.Is(struct_pb2.Struct.DESCRIPTOR) and answer.result.Unpack(structure):
            return MessageToDict(structure)
        return json.loads(answer.result.value) if answer.result.value else None

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self._address, CHANNEL_OPTIONS)
        return bridge_grpc.BridgeServiceStub(self._channel)  # type: ignore[no-untyped-call]


def said(error: grpc.RpcError) -> str:
    """Return an error's status in words."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else str(error)
