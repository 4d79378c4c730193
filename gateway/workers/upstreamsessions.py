"""The sessions that a pool has in the BridgeServer before it: begun when a call needs one, kept alive while they are used, ended.

Its tools are registered in each of them where the pool has a worker_id; a server that has tools of its own (another gateway) needs
none. One object for each connection's Worker; bridgestream.py asks it ahead of each call. The server forgets a session when it likes:
the next call begins it again. What is begun goes on in tasks of the slot's group (`attend`), a task for each session that is
being opened or ended, and one for the heartbeats.

Source: Snakepit's bridge_server.ex and tool_registry.ex, as the contract says them (§5): an hour to live from the last use, quotas,
and tools that stay registered when their session has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from gateway.errors import Code, GatewayError
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.transport.base import CallFailed, Channel
from gateway.workers.options import PoolOptions

log = structlog.get_logger("gateway.worker")

SERVICE = "/snakepit.bridge.BridgeService"
# Sessions kept open; of those beyond, the one that was used longest ago and isn't in use is ended.
SESSION_LIMIT = 1000
ENDINGS_LIMIT = 100
HEARTBEAT_S = 60.0
OPEN_TIMEOUT_S = 10.0
END_TIMEOUT_S = 1.0

# Called with None when the session is open, else with why it can't be.
Ready = Callable[[GatewayError | None], None]


class UpstreamSession:
    """One session: open, or being opened for those in `waiters`. `in_use` counts the calls that have it."""

    __slots__ = ("id", "in_use", "is_open", "is_over", "used", "waiters")

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.is_open = False
        # Its caller's session has ended: it goes with its last call.
        self.is_over = False
        self.in_use = 0
        # Since the last heartbeat.
        self.used = True
        self.waiters: list[Ready] = []


class UpstreamSessions:
    """See the module. `where` is the server in words."""

    def __init__(self, options: PoolOptions, where: str) -> None:
        self._options = options
        self._where = where
        # What every call on the server carries.
        self.headers = tuple(options.headers.items())
        self._sessions: OrderedDict[str, UpstreamSession] = OrderedDict()
        self._channel: Channel | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._endings = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def attend(self, channel: Channel, tasks: asyncio.TaskGroup) -> None:
        """Begin with a connection; its tasks are children of `tasks` until `detach`."""
        self._channel, self._tasks = channel, tasks
        self._spawn(self._keep_alive(channel))

    def detach(self) -> None:
        """The connection is given up: who waits for a session hears so. Idempotent."""
        self._tasks = None
        for task in tuple(self._running):
            task.cancel()
        for session in self._sessions.values():
            self._tell(session, GatewayError("worker-lost", f"the connection to {self._where} was lost"))

    async def end_all(self, channel: Channel) -> None:
        """End every session, in END_TIMEOUT_S at most; never raises but for a cancellation."""
        sessions = [session for session in self._sessions.values() if session.is_open]
        self._sessions.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                for session in sessions:
                    if not await self._clean_up(channel, session.id):
                        return

    def take(self, session_id: str, ready: Ready) -> UpstreamSession:
        """Take a session for a call, which has to `release` it. Where it is not open yet, `ready` is called later, once."""
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = UpstreamSession(session_id)
        self._sessions.move_to_end(session_id)
        session.in_use += 1
        session.used = True
        session.is_over = False
        if not session.is_open:
            session.waiters.append(ready)
            if len(session.waiters) == 1:
                self._open(session)
        return session

    def release(self, session: UpstreamSession) -> None:
        """A call that took the session is over."""
        session.in_use -= 1
        if self._sessions.get(session.id) is not session:
            return
        if session.is_over and not session.in_use:
            self._end(session)
        elif len(self._sessions) > SESSION_LIMIT:
            self._evict()

    def over(self, session_id: str) -> None:
        """The caller's session has ended: end this one, when no call is in it."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        session.is_over = True
        if not session.in_use:
            self._end(session)

    # opening

    def _open(self, session: UpstreamSession) -> None:
        if not self._spawn(self._begin(session)):
            error = GatewayError("worker-lost", f"the connection to {self._where} was lost")
            asyncio.get_running_loop().call_soon(self._tell, session, error)

    async def _begin(self, session: UpstreamSession) -> None:
        channel, error = self._channel, None
        assert channel is not None, "there is a connection while there are tasks"
        try:
            await self._initialize(channel, session.id)
            session.is_open = True
        except GatewayError as exc:
            error = exc
        except CallFailed as exc:
            error = self._refused(exc)
        except DecodeError:
            error = GatewayError("worker-lost", f"{self._where} is no BridgeServer: its answer can't be decoded")
        self._tell(session, error)

    async def _initialize(self, channel: Channel, session_id: str) -> None:
        """Begin a session and register the tools in it.

        Raises:
            CallFailed, DecodeError, GatewayError: it can't be done.
        """
        request = pb.InitializeSessionRequest(session_id=session_id)
        answer = pb.InitializeSessionResponse.FromString(await self._ask(channel, "InitializeSession", request))
        if not answer.success:
            raise GatewayError("no-workers-available", f"{self._where} begins no session: {answer.error_message[:500]}", retry_after_s=5)
        if self._options.worker_id is None:
            return
        message = await self._register(channel, session_id, self._options.tools)
        if "duplicate_tool" in message:
            # Of an earlier session of that id: all or nothing is registered, so each by itself.
            for tool in self._options.tools:
                message = await self._register(channel, session_id, (tool,))
                if message and "duplicate_tool" not in message:
                    break
            else:
                return
        if message:
            raise GatewayError(
                "no-workers-available", f"{self._where} does not register the pool's tools: {message[:500]}", retry_after_s=5
            )

    async def _register(self, channel: Channel, session_id: str, names: tuple[str, ...]) -> str:
        """Register tools; return what is wrong with that, empty where nothing is."""
        tools = [pb.ToolRegistration(name=name, supports_streaming=True) for name in names]
        request = pb.RegisterToolsRequest(session_id=session_id, tools=tools, worker_id=self._options.worker_id or "")
        answer = pb.RegisterToolsResponse.FromString(await self._ask(channel, "RegisterTools", request))
        return "" if answer.success else answer.error_message or "it does not say why"

    def _refused(self, exc: CallFailed) -> GatewayError:
        status = exc.status
        said = status.message or status.code.name
        if "quota" in said:
            return GatewayError("pool-saturated", f"{self._where} takes no more sessions: {said[:500]}", retry_after_s=5)
        if status.connection_lost or status.code is Code.UNAVAILABLE:
            return GatewayError("worker-lost", f"the connection to {self._where} was lost: {said[:500]}")
        if status.code is Code.DEADLINE_EXCEEDED:
            return GatewayError("worker-lost", f"{self._where} did not begin a session in {OPEN_TIMEOUT_S:g} s")
        return GatewayError("no-workers-available", f"{self._where} begins no session: {said[:500]}", retry_after_s=5)

    @staticmethod
    def _tell(session: UpstreamSession, error: GatewayError | None) -> None:
        waiters, session.waiters = session.waiters, []
        for ready in waiters:
            ready(error)

    # keeping, and ending

    async def _keep_alive(self, channel: Channel) -> None:
        """Beat for the sessions that were used since the last beat, or are, until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for session in [session for session in self._sessions.values() if session.is_open and (session.used or session.in_use)]:
                session.used = False
                # A connection that is lost is for the health checks to see.
                with contextlib.suppress(CallFailed, DecodeError):
                    answer = await self._ask(channel, "Heartbeat", pb.HeartbeatRequest(session_id=session.id))
                    if not pb.HeartbeatResponse.FromString(answer).session_valid:
                        session.is_open = False

    def _evict(self) -> None:
        idle = next((session for session in self._sessions.values() if not session.in_use and not session.waiters), None)
        if idle is not None:
            self._end(idle)

    def _end(self, session: UpstreamSession) -> None:
        self._sessions.pop(session.id, None)
        # Beyond that they end by themselves, an hour later.
        if session.is_open and self._channel is not None and self._endings < ENDINGS_LIMIT:
            self._spawn(self._end_on(self._channel, session.id))

    async def _end_on(self, channel: Channel, session_id: str) -> None:
        self._endings += 1
        try:
            await self._clean_up(channel, session_id)
        finally:
            self._endings -= 1

    async def _clean_up(self, channel: Channel, session_id: str) -> bool:
        """Return whether the server has answered."""
        try:
            await self._ask(channel, "CleanupSession", pb.CleanupSessionRequest(session_id=session_id))
        except CallFailed as exc:
            return not exc.status.connection_lost
        return True

    async def _ask(self, channel: Channel, method: str, request: Any) -> bytes:
        return await channel.unary(f"{SERVICE}/{method}", request.SerializeToString(), timeout_s=OPEN_TIMEOUT_S, metadata=self.headers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        """Have it done; False where there is no connection."""
        if self._tasks is None:
            work.close()
            return False
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True
