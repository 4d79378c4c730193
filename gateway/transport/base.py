"""The contract of a gRPC client channel that moves batches of messages.

Implemented by grpcio.py (the C core) and lane.py (asyncio HTTP/2); used by workers/. It pushes, as asyncio's
protocols do: a sink is called from the event loop with all messages that arrived together, so a stream needs
no task of its own and a batch no task switch.

A call's life: `open_stream` or `open_duplex` -> `on_messages`* -> `on_close` exactly once. After `cancel()` nothing more is
delivered but that `on_close` (CANCELLED). Sink methods are called from the event loop, never from within
a method of the channel or the call; they must not raise and must not block.

A duplex call sends as asyncio's transports write: `send` keeps what the peer's windows have no room for and says when to
wait, the sink's `on_sendable` when to go on. What waits is bounded, so a caller that doesn't wait is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, final

from mypy_extensions import trait

from gateway.call import NOTHING
from gateway.errors import Code
from gateway.value import Value

Metadata = Sequence[tuple[str, str]]


@final
class CallStatus(Value):
    """How a call ended: `grpc-status`, the decoded `grpc-message`, and the other trailers.

    `connection_lost` is True where the status was made up here because the connection (or the dial) failed:
    the worker itself answered nothing. `details` is `grpc-status-details-bin`, decoded from base64.
    """

    __slots__ = ("code", "message", "details", "trailers", "connection_lost")  # noqa: RUF023

    def __init__(
        self,
        code: Code,
        message: str = "",
        details: bytes | None = None,
        trailers: Mapping[str, str] = NOTHING,
        connection_lost: bool = False,
    ) -> None:
        self.code = code
        self.message = message
        self.details = details
        self.trailers = trailers
        self.connection_lost = connection_lost


class CallFailed(Exception):
    """A unary call ended with a status other than OK, or with no message."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(f"{status.code.name}: {status.message}")
        self.status = status


class SendRefused(Exception):
    """A message can't be sent on a call: it is too large, came after `end_sending`, or too much waits to be sent already."""


@trait
class StreamSink:
    """Who a call delivers to."""

    __slots__ = ()

    def on_messages(self, messages: list[bytes]) -> None:
        """Take all messages that arrived together, in order; at least one. The list is the sink's to keep."""
        raise NotImplementedError

    def on_close(self, status: CallStatus) -> None:
        """The call is over; called exactly once, after the last message."""
        raise NotImplementedError


@trait
class DuplexSink(StreamSink):
    """Who a call with many request messages delivers to."""

    __slots__ = ()

    def on_sendable(self) -> None:
        """There is room again, after a `send` that returned False: at most UNSENT_LOW_BYTES are left to be sent."""
        raise NotImplementedError


class StreamCall(Protocol):
    """One call in progress."""

    def pause_reading(self) -> None:
        """Stop crediting the peer's flow-control window, so that it stops sending.

        What is already under way may still be delivered: at most one window (base.WINDOW_BYTES). Idempotent.
        """

    def resume_reading(self) -> None:
        """Credit what was delivered meanwhile. Idempotent."""

    def cancel(self) -> None:
        """Reset the stream (RST_STREAM CANCEL) at once; idempotent, and harmless after the end."""


class WireCall(StreamCall, Protocol):
    """A call as a channel has it."""

    def headers(self) -> Mapping[str, str]:
        """Return the metadata that the peer has sent ahead of its first message; to be asked from `on_messages` on.

        Values of `-bin` names are base64 text; of a repeated name the last one is there.
        """


class DuplexCall(WireCall, Protocol):
    """One call in progress whose request messages come one by one."""

    def send(self, message: bytes) -> bool:
        """Send a message after those before it; return whether there is room for more.

        False: UNSENT_HIGH_BYTES or more wait for the peer, so wait for `on_sendable`; or the call is over, whose `on_close` was
        called or is about to be, and the message was dropped.

        Raises:
            SendRefused: the message is over MESSAGE_LIMIT_BYTES, `end_sending` was called, or UNSENT_LIMIT_BYTES wait already.
                Nothing was sent; the call goes on.
        """

    def end_sending(self) -> None:
        """Say that there are no more messages (half-close), behind those sent before. Idempotent; answers may go on coming."""


class Channel(Protocol):
    """The connections to one worker. Reconnects by itself with back-off; a call made while down fails UNAVAILABLE."""

    @property
    def address(self) -> str:
        """`host:port`, `unix:/path` or `dns:///name:port`."""

    @property
    def connections(self) -> int:
        """How many connections were made so far: on another one another program may answer. 0 where that isn't known."""

    def open_stream(
        self,
        method: str,
        request: bytes,
        sink: StreamSink,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> WireCall:
        """Start a call with one request message and any number of answers; a unary method is one with a single answer.

        `method` is the full path, `/package.Service/Method`. `timeout_s` becomes `grpc-timeout` and is kept here
        too: past it the call is reset and closes with DEADLINE_EXCEEDED. A message over MESSAGE_LIMIT_BYTES closes
        it with RESOURCE_EXHAUSTED. Never raises: what fails is told to the sink.
        """

    def open_duplex(self, method: str, sink: DuplexSink, *, timeout_s: float | None = None, metadata: Metadata = ()) -> DuplexCall:
        """Start a call with any number of request messages and answers; else as `open_stream`.

        Its headers leave at once, so that the peer may answer before the first message. Messages may be sent from now on, also
        while there is no connection yet. The peer may end the call before `end_sending`: what was not sent is dropped then.
        """

    async def unary(self, method: str, request: bytes, *, timeout_s: float, metadata: Metadata = ()) -> bytes:
        """Make a call and return its one answer. A cancelled task cancels the call.

        Raises:
            CallFailed: the status was not OK, or no message came.
        """

    async def aclose(self) -> None:
        """End every call with UNAVAILABLE and close the connections."""


# The stream window we offer: what a paused call may still deliver.
WINDOW_BYTES = 1 << 17
# What of a duplex call waits to be sent: from HIGH on its caller is to wait, until LOW is left; at LIMIT it is refused.
UNSENT_HIGH_BYTES = 1 << 16
UNSENT_LOW_BYTES = 1 << 14
UNSENT_LIMIT_BYTES = 1 << 20
# Snakepit's limit on both sides.
MESSAGE_LIMIT_BYTES = 100 * 1024 * 1024
# Room for a status message with a traceback in it: the default of 8 KiB makes such a call RESOURCE_EXHAUSTED.
METADATA_LIMIT_BYTES = 1 << 20
