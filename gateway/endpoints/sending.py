"""What a socket's client sends to one call of a gRPC service's method: message by message, each checked by the method's codec.

Made by a socket (rpcsocket.py, subprotocol.py) with the call, and told of the run once it is there. Messages go to the call's Feed; while
that has no room the socket isn't read, so that nothing is ever dropped and what waits is bounded. A run whose sender is gone is cancelled,
whoever else reads it: nobody could ever end its stream of messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.call import RpcRequest, ToolCall
from gateway.caller import Caller
from gateway.codec.websocket import BadFrame
from gateway.correlation import correlation_of
from gateway.endpoints import arguments
from gateway.endpoints.options import CallOptions
from gateway.errors import GatewayError
from gateway.runs.policy import Cause, Leaving, invalid_option
from gateway.runs.run import Run
from gateway.runs.source import RunSource
from gateway.services.feed import Feed
from gateway.services.metadata import metadata_of
from gateway.services.tool import RpcTool

# How often a client that is made to wait is looked after.
LOOK_S = 1.0


class Peer(Protocol):
    """The other end of a socket that isn't read."""

    def is_gone(self) -> bool:
        """Return whether it has hung up, also where what it sent before is yet to be read."""


class Sending:
    """The sending half of one run. `peer` None: nobody can say whether it is there while the socket isn't read."""

    def __init__(self, tool: RpcTool, depth_limit: int, peer: Peer | None) -> None:
        self.feed = Feed(self._go_on)
        self._tool = tool
        self._depth_limit = depth_limit
        self._peer = peer
        self._room = asyncio.Event()
        self._run: RunSource | None = None
        self._forget: Callable[[], None] | None = None

    def joined(self, run: RunSource) -> None:
        """The call is this run."""
        self._run = run
        if run.ended is None:
            self._forget = run.when_ended(self._go_on)

    async def take(self, payload: Any) -> bool:
        """Pass a message on, and return once another one may come; False where the client has hung up meanwhile.

        One that is no message of the method ends the run, which tells its readers why. What comes after the run's end is old news.

        Raises:
            BadFrame: there was an `end` before.
        """
        run = self._run
        if run is None or run.ended is not None:
            return True
        if self.feed.ended:
            raise BadFrame("a `send` after the `end` of its run")
        try:
            self._room.clear()
            if self.feed.send(message_of(self._tool, payload, self._depth_limit)):
                return True
        except GatewayError as error:
            if isinstance(run, Run):
                # The run keeps it, and its traceback would keep this frame, which has the run.
                run.fail(error.with_traceback(None))
            return True
        return await self._wait(run)

    def end(self) -> None:
        """Close the sending half. A second time, and after the run's end, it means nothing."""
        if not self.feed.ended:
            self.feed.end()

    def abandon(self) -> None:
        """The client is gone, or wants no more."""
        run, self._run = self._run, None
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()
        if run is not None:
            run.cancel(Cause.DISCONNECT)
        self.feed.close()

    async def _wait(self, run: RunSource) -> bool:
        """Return when there is room, True, or when nobody is there that waits for it."""
        while not self._room.is_set() and run.ended is None:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._room.wait()
            except TimeoutError:
                if self._peer is not None and self._peer.is_gone():
                    return False
        return True

    def _go_on(self) -> None:
        self._room.set()


def message_of(tool: RpcTool, payload: Any, depth_limit: int) -> bytes:
    """Return a `send` frame's payload as the method's request message.

    Raises:
        GatewayError: `invalid-message`, naming each wrong field; `invalid-body`: it nests too deep.
    """
    arguments.check_depth(payload, depth_limit)
    return tool.method.request.from_json(payload)


def rpc_call(
    tool: RpcTool,
    options: CallOptions,
    caller: Caller,
    scope: Mapping[str, Any],
    *,
    message: bytes = b"",
    feed: Feed | None = None,
) -> ToolCall:
    """Return the call of a method that came by a socket with this scope: with its one message, or with a feed of many.

    Raises:
        GatewayError: `invalid-option`: with a feed, its run can't outlive the socket.
    """
    if feed is not None and options.policy.on_disconnect.kind is not Leaving.CANCEL:
        raise invalid_option("_on_disconnect", "is `cancel` for a method that takes a stream of messages: nobody else can go on with that")
    return ToolCall(
        tool=tool.name,
        arguments={},
        timeout_s=options.timeout_s,
        streaming=tool.method.kind.server_streams,
        pool=options.pool,
        rpc=RpcRequest(message, metadata_of(scope["headers"], tool.options.headers_in), feed=feed),
        caller=caller,
        correlation=correlation_of(scope),
    )
