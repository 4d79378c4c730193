"""The contract of a gRPC client channel that moves batches of messages.

Implemented by grpcio.py (the C core) and lane.py (asyncio HTTP/2); used by workers/. It pushes, as asyncio's
protocols do: a sink is called from the event loop with all messages that arrived together, so a stream needs
no task of its own and a batch no task switch.

A call's life: `open_stream` -> `on_messages`* -> `on_close` exactly once. After `cancel()` nothing more is
delivered but that `on_close` (CANCELLED). Sink methods are called from the event loop, never from within
`open_stream`, `cancel`, `pause_reading` or `resume_reading`; they must not raise and must not block.
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


class Channel(Protocol):
    """The connections to one worker. Reconnects by itself with back-off; a call made while down fails UNAVAILABLE."""

    @property
    def address(self) -> str:
        """`host:port`, `unix:/path` or `dns:///name:port`."""

    def open_stream(
        self,
        method: str,
        request: bytes,
        sink: StreamSink,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> StreamCall:
        """Start a call with one request message and any number of answers; a unary method is one with a single answer.

        `method` is the full path, `/package.Service/Method`. `timeout_s` becomes `grpc-timeout` and is kept here
        too: past it the call is reset and closes with DEADLINE_EXCEEDED. A message over MESSAGE_LIMIT_BYTES closes
        it with RESOURCE_EXHAUSTED. Never raises: what fails is told to the sink.
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
# Snakepit's limit on both sides.
MESSAGE_LIMIT_BYTES = 100 * 1024 * 1024
# Room for a status message with a traceback in it: the default of 8 KiB makes such a call RESOURCE_EXHAUSTED.
METADATA_LIMIT_BYTES = 1 << 20
