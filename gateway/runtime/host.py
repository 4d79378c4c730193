"""The link from a worker to the Snakepit host that started it (`--elixir-address`).

Made by serve.py when there is a host. The worker pings it before it serves, tells it of each session it
executes in, registers its tools there once for each session, and beats for it; session calls on the worker are
passed on. Nothing here blocks the event loop or fails an execution: every call has a deadline, and what goes
wrong is logged. Sessions are remembered up to SESSION_LIMIT; the one used longest ago loses its heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf import timestamp_pb2

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc
from gateway.runtime.heartbeat import HeartbeatSettings, beat
from gateway.runtime.hosttools import CHANNEL_OPTIONS, RemoteHostTools, said
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


class HostUnreachable(Exception):
    """The host did not answer when the worker started."""


async def reach(address: str) -> None:
    """Ping the host until it answers; a worker serves only when it does.

    Raises:
        HostUnreachable: it did not in 60 tries, about two minutes.
    """
    pause_s = 0.05
    async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        host = bridge_grpc.BridgeServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(_PING_TRIES):
            try:
                await host.Ping(bridge.PingRequest(message="connection_test"), timeout=_PING_TIMEOUT_S)
            except grpc.RpcError as error:
                logger.info("the host at %s does not answer yet: %s", address, said(error))
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
        self._channel = grpc.aio.insecure_channel(address, CHANNEL_OPTIONS)
        self._host = bridge_grpc.BridgeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        # Known sessions, the one used longest ago first, each with its heartbeat's task.
        self._beats: OrderedDict[str, asyncio.Task[None] | None] = OrderedDict()
        self._tools = RemoteHostTools(address)

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
            logger.warning("%s on the host failed: %s", what, said(error))
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


def _registrations(adapter: LoadedAdapter) -> list[bridge.ToolRegistration]:
    """Return the adapter's tools as Snakepit's registry takes them."""
    return [
        bridge.ToolRegistration(
            name=tool.name,
            description=tool.description,
            supports_streaming=tool.supports_streaming,
            parameters=tool.parameters.specs(),
            metadata={
                "adapter_class": adapter.type.__name__,
                "module": adapter.type.__module__,
                "required_variables": ",".join(tool.required_variables),
            },
        )
        for tool in adapter.tools.values()
    ]


async def _passed_on(call: Awaitable[Answer], context: Context) -> Answer | None:
    """Return the host's answer; on an error give the caller the host's status and return None."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        context.set_code(error.code())
        context.set_details(error.details() or "")
        return None
