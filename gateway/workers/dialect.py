"""How an upstream is spoken to: all that differs between kinds of workers, in one place.

A pool makes one Dialect for each Worker. The slots (local.py, address.py) and health.py ask it what the worker offers, and have it
say goodbye; worker.py and toolstream.py ask it what a call carries. The base class speaks to any worker that has Snakepit's
BridgeService and no more; each subclass overrides what its kind can do better, or has to do otherwise.

    WorkerDialect     kinds local and addresses    our own workers; at an address also one that turns out to be no worker of ours
    SnakepitDialect   kind snakepit                Snakepit's workers, to whom we are the host (snakepit.py)
    BridgeDialect     kind bridge                  a BridgeServer, Snakepit's or another gateway's (bridge.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from gateway.call import ToolCall
from gateway.errors import Code
from gateway.rpc.snakepit_bridge_pb2 import PingRequest
from gateway.transport.base import CallFailed, Channel
from gateway.workers.description import DESCRIBE, DESCRIBE_REQUEST, UNKNOWN, Description, Tool, read_description
from gateway.workers.options import PoolOptions
from gateway.workers.program import OwnProgram, Program
from gateway.workers.upstreamsessions import UpstreamSessions

PING = "/snakepit.bridge.BridgeService/Ping"

_PING_REQUEST = PingRequest(message="gateway").SerializeToString()


class Unusable(ValueError):
    """The worker answers, and what it says of itself can't be used: asking again won't help."""


class Dialect:
    """A worker that has BridgeService and can't describe itself: it is there when it answers Ping, its tools are those of the settings."""

    # Whether a call may be paused while a reader is slow: the worker then waits. None: it may; else what is taken meanwhile
    # without anybody reading it, in bytes, before the call is given up.
    stall_limit_bytes: int | None = None

    # What a long silence may mean, in words for who has waited in vain.
    silence = ""
    # What calls have to begin in, where that takes a call of its own; None: nothing.
    sessions: UpstreamSessions | None = None

    def __init__(self, options: PoolOptions, worker_id: str) -> None:
        self.options = options
        self.worker_id = worker_id

    async def describe(self, channel: Channel, timeout_s: float, known: Description = UNKNOWN) -> Description:
        """Return what the worker offers; `known` itself where nothing changed. Asked when the connection stands, and by health checks.

        Raises:
            CallFailed: it does not answer.
            ValueError: it can't describe its tools and the options name none, or its answer makes no sense.
        """
        options = self.options
        await channel.unary(PING, _PING_REQUEST, timeout_s=timeout_s, metadata=tuple(options.headers.items()))
        if not options.tools:
            raise ValueError(f"the worker at {channel.address} can't describe its tools: list their names in the pool's `tools`")
        return Description(options.concurrency, {name: Tool(name, options.name) for name in options.tools})

    def program(self) -> Program:
        """Return the program that a process of this worker runs, where the pool starts it."""
        return OwnProgram(self.options, self.worker_id)

    def attend(self, channel: Channel, tasks: asyncio.TaskGroup) -> None:
        """Begin with a connection, ahead of the first call on it; what has to go on meanwhile becomes a task of these, until `detach`."""

    def detach(self) -> None:
        """End what `attend` has begun: no call is made on the connection any more."""

    def forget_session(self, session_id: str) -> None:
        """Hear that a caller's session is over."""

    async def leave(self, channel: Channel) -> None:
        """Say goodbye to a worker that goes on without us, in a second at most; never raises but for a cancellation."""

    def close(self) -> None:
        """Forget the worker: it has ended, or is not spoken to any more. Idempotent."""

    def is_worn_out(self, threads_lost: int) -> bool:
        """Return whether a worker that may have lost so many threads (lull.py) is to be replaced; asked at each."""
        return False

    def session_id(self, call: ToolCall, description: Description) -> str:
        """Return the session id that a call carries. A worker of Snakepit's keeps something for each it has seen: it gets one for good."""
        return f"gateway_{self.worker_id}"

    def metadata(self, call: ToolCall, timeout_s: float) -> Mapping[str, str]:
        """Return the metadata of a call's request; `timeout_s` is what is left for its execution."""
        return call.metadata

    def told(self, text: str, call: ToolCall) -> str:
        """Return what a worker says of a call's failure, without what is between it and us alone."""
        return text

    def trusts_json(self, description: Description) -> bool:
        """Return whether chunks are passed on without looking whether they are JSON."""
        return self.options.payload == "json"

    def tells_stops(self, description: Description) -> bool:
        """Return whether the worker can be asked (AwaitStop) if a cancelled tool has really stopped."""
        return False


class WorkerDialect(Dialect):
    """A worker that answers Describe, as ours do; one that doesn't is spoken to as any other."""

    async def describe(self, channel: Channel, timeout_s: float, known: Description = UNKNOWN) -> Description:
        try:
            answer = await channel.unary(DESCRIBE, DESCRIBE_REQUEST, timeout_s=timeout_s)
        except CallFailed as exc:
            if exc.status.code is not Code.UNIMPLEMENTED:
                raise
            return await super().describe(channel, timeout_s, known)
        return known if known.is_described and answer == known.answer else read_description(answer, self.options)

    def session_id(self, call: ToolCall, description: Description) -> str:
        return call.session_id or "" if description.is_described else super().session_id(call, description)

    def trusts_json(self, description: Description) -> bool:
        return description.is_described if self.options.payload is None else self.options.payload == "json"

    def tells_stops(self, description: Description) -> bool:
        return description.is_described


# Makes the dialect of a worker with this id.
Speak = Callable[[PoolOptions, str], Dialect]
