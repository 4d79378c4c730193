"""The link from a worker to the Snakepit host that started it (`--elixir-address`).

Made by serve.py when there is a host. The worker pings it before it serves, tells it of each session it
executes in, registers its tools there once for each session, and beats for it; session calls on the worker are
passed on. Nothing here blocks the event loop or fails an execution: every call has a deadline, and what goes
wrong is logged. Sessions are remembered up to SESSION_LIMIT; the one used longest ago loses its heartbeat.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import grpc
import orjson
from google.protobuf import any_pb2, struct_pb2, timestamp_pb2
from google.protobuf.json_format import MessageToDict

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc
from gateway.runtime import payload
from gateway.runtime.failure import Unserialisable
from gateway.runtime.heartbeat import HeartbeatSettings, beat
from gateway.runtime.limits import MESSAGE_LIMIT_BYTES, METADATA_LIMIT_BYTES
from gateway.runtime.loading import LoadedAdapter
from gateway.runtime.session import HostTools

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Answer = TypeVar("Answer")

SESSION_LIMIT = 64
_PING_TRIES = 60
_PING_TIMEOUT_S = 1.0
# What an execution waits for the host at most, for each of InitializeSession and RegisterTools.
_SESSION_TIMEOUT_S = 2.0
_PROXY_TIMEOUT_S = 10.0
_TOOL_TIMEOUT_S = 300.0
_TEXT_URL = "type.googleapis.com/google.protobuf.StringValue"
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_LIMIT_BYTES),
    # A host on a loopback port of its own is always there first; the default of 20 s would outlast it.
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class HostUnreachable(Exception):
    """The host did not answer when the worker started."""


async def reach(address: str) -> None:
    """Ping the host until it answers; a worker serves only when it does.

    Raises:
        HostUnreachable: it did not in 60 tries, about two minutes.
    """
    pause_s = 0.05
    async with grpc.aio.insecure_channel(address, _OPTIONS) as channel:
        host = bridge_grpc.BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(_PING_TRIES):
            try:
                await host.Ping(bridge.PingRequest(message="connection_test"), timeout=_PING_TIMEOUT_S)
            except grpc.RpcError as error:
                logger.info("the host at %s does not answer yet: %s", address, _said(error))
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)
    raise HostUnreachable(f"the Snakepit host at {address} did not answer {_PING_TRIES} pings")


class HostLink:
    """The host's side of sessions (see sessions.Sessions). `lost` is called when a dependent worker should end."""

    def __init__(
        self,
        address: str,
        adapter: LoadedAdapter,
        settings: HeartbeatSettings,
        *,
        worker_id: str,
        group: asyncio.TaskGroup,
        lost: Callable[[], None],
    ) -> None:
        self._registrations = _registrations(adapter)
        self._settings = settings
        self._worker_id = worker_id
        self._group = group
        self._lost = lost
        self._channel = grpc.aio.insecure_channel(address, _OPTIONS)
        self._host = bridge_grpc.BridgeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        # Known sessions, the one used longest ago first, each with its heartbeat's task.
        self._beats: OrderedDict[str, asyncio.Task[None] | None] = OrderedDict()
        self._tools = _HostTools(address)

    @property
    def host_tools(self) -> HostTools | None:
        return self._tools

    async def prepare(self, session_id: str) -> None:
        request = bridge.InitializeSessionRequest(session_id=session_id)
        await self._tell("InitializeSession", self._host.InitializeSession(request, timeout=_SESSION_TIMEOUT_S))
        if session_id not in self._beats:
            # Noted first, whatever the host says: it is asked once, as Snakepit's own worker asks it.
            self._know(session_id)
            tools = bridge.RegisterToolsRequest(session_id=session_id, tools=self._registrations, worker_id=self._worker_id)
            answer = await self._tell("RegisterTools", self._host.RegisterTools(tools, timeout=_SESSION_TIMEOUT_S))
            if answer is not None and not answer.success and "duplicate_tool" not in answer.error_message:
                logger.warning("the host did not register the tools of session %s: %s", session_id, answer.error_message)
        else:
            self._beats.move_to_end(session_id)

    def _know(self, session_id: str) -> None:
        """Remember a session and start its heartbeat; forget the one used longest ago where there are too many."""
        task = self._group.create_task(beat(self._settings, session_id, self._beat, self._lost)) if self._settings.enabled else None
        self._beats[session_id] = task
        if len(self._beats) > SESSION_LIMIT:
            self._forget(next(iter(self._beats)))

    def _forget(self, session_id: str) -> None:
        task = self._beats.pop(session_id, None)
        if task is not None:
            task.cancel()

    async def _beat(self, session_id: str, timeout_s: float) -> bool:
        stamp = timestamp_pb2.Timestamp()
        stamp.GetCurrentTime()
        call = self._host.Heartbeat(bridge.HeartbeatRequest(session_id=session_id, client_time=stamp), timeout=timeout_s)
        return await self._tell("Heartbeat", call) is not None

    async def _tell(self, what: str, call: Awaitable[Answer]) -> Answer | None:
        try:
            return await call
        except grpc.RpcError as error:
            logger.warning("%s on the host failed: %s", what, _said(error))
            return None

    async def initialize(self, request: bridge.InitializeSessionRequest, context: Context) -> bridge.InitializeSessionResponse:
        answer = await _passed_on(self._host.InitializeSession(request, timeout=_PROXY_TIMEOUT_S), context)
        return answer or bridge.InitializeSessionResponse()

    async def clean_up(self, request: bridge.CleanupSessionRequest, context: Context) -> bridge.CleanupSessionResponse:
        self._forget(request.session_id)
        answer = await _passed_on(self._host.CleanupSession(request, timeout=_PROXY_TIMEOUT_S), context)
        return answer or bridge.CleanupSessionResponse()

    async def get(self, request: bridge.GetSessionRequest, context: Context) -> bridge.GetSessionResponse:
        return await _passed_on(self._host.GetSession(request, timeout=_PROXY_TIMEOUT_S), context) or bridge.GetSessionResponse()

    async def heartbeat(self, request: bridge.HeartbeatRequest, context: Context) -> bridge.HeartbeatResponse:
        return await _passed_on(self._host.Heartbeat(request, timeout=_PROXY_TIMEOUT_S), context) or bridge.HeartbeatResponse()

    async def aclose(self) -> None:
        """Stop the heartbeats and close the channels."""
        for session_id in tuple(self._beats):
            self._forget(session_id)
        self._tools.close()
        await self._channel.close()


class _HostTools:
    """The host's tools for synchronous code: gRPC's blocking client, on a channel made at the first use."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel: grpc.Channel | None = None

    def exposed(self, session_id: str) -> dict[str, Any]:
        try:
            answer = self._stub().GetExposedElixirTools(
                bridge.GetExposedElixirToolsRequest(session_id=session_id), timeout=_PROXY_TIMEOUT_S
            )
        except grpc.RpcError as error:
            logger.warning("the host's tools can't be listed: %s", _said(error))
            return {}
        return {tool.name: MessageToDict(tool, preserving_proto_field_name=True) for tool in answer.tools}

    def execute(self, session_id: str, name: str, arguments: Mapping[str, Any], timeout_s: float | None) -> Any:
        parameters = {key: any_pb2.Any(type_url=_TEXT_URL, value=payload.encode(value)) for key, value in arguments.items()}
        request = bridge.ExecuteElixirToolRequest(session_id=session_id, tool_name=name, parameters=parameters)
        try:
            answer = self._stub().ExecuteElixirTool(request, timeout=_TOOL_TIMEOUT_S if timeout_s is None else timeout_s)
        except grpc.RpcError as error:
            raise RuntimeError(f"the host's tool {name} can't be called: {_said(error)}") from error
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
            self._channel = grpc.insecure_channel(self._address, _OPTIONS)
        return bridge_grpc.BridgeServiceStub(self._channel)  # type: ignore[no-untyped-call]


def _registrations(adapter: LoadedAdapter) -> list[bridge.ToolRegistration]:
    """Return the adapter's tools as Snakepit's registry takes them."""
    return [
        bridge.ToolRegistration(
            name=tool.name,
            description=tool.description,
            supports_streaming=tool.supports_streaming,
            parameters=[
                bridge.ParameterSpec(
                    name=parameter.name,
                    type=parameter.type,
                    description=parameter.description,
                    required=parameter.required,
                    validation_json="" if parameter.required else _default(parameter.default),
                )
                for parameter in tool.parameters.each
            ],
            metadata={
                "adapter_class": adapter.type.__name__,
                "module": adapter.type.__module__,
                "required_variables": ",".join(tool.required_variables),
            },
        )
        for tool in adapter.tools.values()
    ]


def _default(default: Any) -> str:
    try:
        return payload.encode({"default": default}).decode()
    except Unserialisable:
        return orjson.dumps({}).decode()


async def _passed_on(call: Awaitable[Answer], context: Context) -> Answer | None:
    """Return the host's answer; on an error give the caller the host's status and return None."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        context.set_code(error.code())
        context.set_details(error.details() or "")
        return None


def _said(error: grpc.RpcError) -> str:
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else str(error)
