"""Snakepit's own workers, unmodified: what they have to be told, and what has to be kept from them.

The dialect of kind `snakepit`. The gateway is the worker's host (gateway/host); this is the other direction: what we call on the
worker. What breaks such a worker, and what is done about it:

    each session id it has seen costs it a heartbeat for ever    one id a worker, whatever sessions callers have
    it ends itself only when a session's heartbeat fails          a session is begun as soon as it answers
    it describes itself to its host alone, in its first call      a call that it can't decode: it registers its tools, and runs none
    a stream that isn't read leaks a thread when it is cancelled  it is always read; what nobody takes is bounded, then the call ends;
                                                                  calls are ended in a lull (lull.py), and a worker that may have
                                                                  lost its spare threads all the same is replaced
    a chunk that JSON can't say hangs the stream                  an idle time-out (PoolOptions.idle_timeout_s)
    more streams than threads: the rest gets nothing              one call at once unless `concurrency` says more
"""

from __future__ import annotations

import contextlib
import os
import secrets

import structlog
from google.protobuf.any_pb2 import Any

from gateway.call import ToolCall
from gateway.codec.values import JSON_TYPE_URL
from gateway.errors import Code, ToolFailed
from gateway.host.listener import Host
from gateway.host.sessions import HostSession
from gateway.rpc.snakepit_bridge_pb2 import CleanupSessionRequest, ExecuteToolRequest, InitializeSessionRequest, PingRequest
from gateway.transport.base import CallFailed, Channel
from gateway.workers.description import UNKNOWN, Description, Tool
from gateway.workers.dialect import PING, Dialect, Unusable
from gateway.workers.failure import tool_failed
from gateway.workers.options import PoolOptions
from gateway.workers.program import SnakepitProgram, max_workers
from gateway.workers.registered import registered_tools

log = structlog.get_logger("gateway.worker")

_INITIALIZE_SESSION = "/snakepit.bridge.BridgeService/InitializeSession"
_CLEANUP_SESSION = "/snakepit.bridge.BridgeService/CleanupSession"
_EXECUTE_STREAMING_TOOL = "/snakepit.bridge.BridgeService/ExecuteStreamingTool"

_PING_REQUEST = PingRequest(message="gateway").SerializeToString()
_LEAVE_TIMEOUT_S = 1.0
# What a worker on this machine has for synchronous tools: the size of Python's default executor.
THREADS = min(32, (os.cpu_count() or 1) + 4)
# The name of no tool: shows up in the worker's log.
_NO_TOOL = "gateway.register"
# What a worker says of a parameter that is no JSON, whichever JSON library it has.
_UNDECODABLE = "JSONDecodeError"


class SnakepitDialect(Dialect):
    """One worker of Snakepit's, whose host is `host`."""

    silence = (
        "a Snakepit worker also falls silent for good when a synchronous tool yields what JSON has no form for (an array within a dict, a "
        "set, a date), and while more streams run on it than it has threads"
    )

    def __init__(self, host: Host, options: PoolOptions, worker_id: str) -> None:
        super().__init__(options, worker_id)
        self.stall_limit_bytes = options.stall_limit_bytes
        self._host = host
        self._session: HostSession | None = None
        # What the description was read from.
        self._registered: object = None

    def program(self) -> SnakepitProgram:
        # Not of the session's id: everybody on the machine can read a command line.
        return SnakepitProgram(self.options, self.worker_id, host_address=self._host.address, token=secrets.token_hex(8))

    async def describe(self, channel: Channel, timeout_s: float, known: Description = UNKNOWN) -> Description:
        """See Dialect. A worker registers its tools in the first call that it gets: it gets one that it can't decode.

        An empty parameter is no JSON. The worker makes its adapter, registers the tools, initialises the adapter, and then fails to read
        the parameter: no tool is executed.
        """
        await channel.unary(PING, _PING_REQUEST, timeout_s=timeout_s)
        session = self._own_session()
        if known is not UNKNOWN:
            return known if session.tools is self._registered else self._read(session, None)
        with contextlib.suppress(_Unimplemented):
            # The heartbeat begins with this: from now on the worker ends itself when we are gone.
            request = InitializeSessionRequest(session_id=session.id)
            await _unary(channel, _INITIALIZE_SESSION, request.SerializeToString(), timeout_s)
        failure = await self._provoke(channel, session, timeout_s)
        return self._read(session, failure)

    async def leave(self, channel: Channel) -> None:
        """End the session on the worker, which otherwise goes on with its heartbeat for as long as it lives."""
        if self._session is not None:
            request = CleanupSessionRequest(session_id=self._session.id)
            with contextlib.suppress(CallFailed):
                await channel.unary(_CLEANUP_SESSION, request.SerializeToString(), timeout_s=_LEAVE_TIMEOUT_S)

    def close(self) -> None:
        if self._session is not None:
            self._host.dismiss(self._session)
            self._session = None

    def is_worn_out(self, threads_lost: int) -> bool:
        log.warning("a call that was broken off may have cost a worker a thread", worker=self.worker_id, lost=threads_lost, threads=THREADS)
        options = self.options
        return options.starts_processes and threads_lost >= max(1, THREADS - options.concurrency)

    def session_id(self, call: ToolCall, description: Description) -> str:
        return self._own_session().id

    def told(self, text: str, call: ToolCall) -> str:
        # The worker's errors name its session, which is its secret: callers get the text, by gRPC all of it.
        return text if self._session is None else text.replace(self._session.id, call.session_id or "")

    def _own_session(self) -> HostSession:
        if self._session is None:
            self._session = self._host.admit(self.worker_id)
        return self._session

    async def _provoke(self, channel: Channel, session: HostSession, timeout_s: float) -> ToolFailed | None:
        """Have the worker register its tools; return what went wrong besides what has to."""
        request = ExecuteToolRequest(session_id=session.id, tool_name=_NO_TOOL, stream=True)
        request.parameters["undecodable"].CopyFrom(Any(type_url=JSON_TYPE_URL))
        try:
            await channel.unary(_EXECUTE_STREAMING_TOOL, request.SerializeToString(), timeout_s=timeout_s)
        except CallFailed as exc:
            status = exc.status
            if status.connection_lost or status.code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
                raise
            error = tool_failed(status.code, status.message)
            # Not all versions of the threaded server say an error's type; and INVALID_ARGUMENT is what it is.
            is_as_meant = status.code is Code.INVALID_ARGUMENT or (status.code is Code.INTERNAL and error.error_type is None)
            return None if error.error_type == _UNDECODABLE or (is_as_meant and session.tools is not None) else error
        return None

    def _read(self, session: HostSession, failure: ToolFailed | None) -> Description:
        options = self.options
        self._registered = session.tools
        tools = {} if session.tools is None else registered_tools(session.tools, options.name)
        if failure is not None:
            said = f"{failure.error_type}: {failure.detail}" if failure.error_type else failure.detail
            if not options.tools:
                raise Unusable(f"its adapter failed: {said[:1000]}")
            log.warning("a worker's first call failed", worker=self.worker_id, reason=said[:1000])
        if not tools and not options.tools:
            raise Unusable(f"{_why_none(session)}: list their names in the pool's `tools`")
        tools |= {name: Tool(name, options.name) for name in options.tools if name not in tools}
        return Description(options.concurrency, tools)


def check_concurrency(options: PoolOptions) -> str | None:
    """Return what is wrong with a pool's concurrency, in words for the operator; None where nothing is."""
    if not options.command:
        return None
    threaded = max_workers(options)
    limit = THREADS if threaded is None else threaded
    if options.concurrency <= limit:
        return None
    what = "Snakepit's worker has that many threads for synchronous tools" if threaded is None else "its --max-workers"
    return f"concurrency is {options.concurrency}, more than {limit}: {what}; calls beyond that get nothing until others end"


def _why_none(session: HostSession) -> str:
    if session.refusal is not None:
        return f"the registration of its tools was refused ({session.refusal})"
    if session.tools is None:
        return "its adapter registers no tools (it has no register_with_session, or another host)"
    return "its adapter registers no tools of its own"


class _Unimplemented(Exception):
    """The worker has no such method."""


async def _unary(channel: Channel, method: str, request: bytes, timeout_s: float) -> bytes:
    """As channel.unary.

    Raises:
        _Unimplemented: the worker has no such method.
        CallFailed: it failed for any other reason.
    """
    try:
        return await channel.unary(method, request, timeout_s=timeout_s)
    except CallFailed as exc:
        if exc.status.code is Code.UNIMPLEMENTED:
            raise _Unimplemented from exc
        raise
