"""The fast transport: gRPC calls over asyncio and HTTP/2, a batch of messages for each read of the socket.

Built by open_transport, used by workers/. From here down: LaneChannel gives a call to a Link (link.py, a
socket), whose ClientConnection (connection.py) reads the frames; dialer.py makes links. The only task is the
dial, a child of the task group handed in. Invariant: every call hears its end exactly once.

| the channel has          | a new call                                                    |
|--------------------------|---------------------------------------------------------------|
| a link with room         | is sent at once                                               |
| links, all full          | waits; another link is dialled, up to LINKS_LIMIT             |
| no link                  | waits while one is dialled (DIAL_TIMEOUT_S at most)           |
| no link, the dial failed | is refused UNAVAILABLE until the dialer has rested            |
| been closed              | is refused UNAVAILABLE                                        |
"""

from __future__ import annotations

import asyncio
import logging

from gateway.errors import Code
from gateway.transport.address import TcpAddress, parse_address
from gateway.transport.base import MESSAGE_LIMIT_BYTES, CallStatus, DuplexCall, DuplexSink, Metadata, StreamSink, WireCall
from gateway.transport.connection import ClientConnection
from gateway.transport.dialer import Dialer, DialFailed
from gateway.transport.headers import MetadataInvalid, check_metadata
from gateway.transport.lanecall import LaneCall
from gateway.transport.laneduplex import LaneDuplexCall
from gateway.transport.link import Link
from gateway.transport.tls import TlsOptions
from gateway.transport.unary import call_unary

logger = logging.getLogger(__name__)

# How many connections a channel opens to a peer that limits the streams on each.
LINKS_LIMIT = 8
# How many calls may wait for a dial or for room; one more is refused RESOURCE_EXHAUSTED.
WAITING_LIMIT = 10_000


class LaneTransport:
    """Makes channels over asyncio."""

    def __init__(self, tasks: asyncio.TaskGroup, *, message_limit_bytes: int = MESSAGE_LIMIT_BYTES) -> None:
        """`tasks` becomes the parent of every dial; a dial that fails does not fail the group."""
        self._tasks = tasks
        self._message_limit_bytes = message_limit_bytes

    def connect(self, address: str, *, tls: TlsOptions | None = None) -> LaneChannel:
        """Return a channel to `address`; it dials at the first call. Must be called with the loop running.

        Raises:
            ValueError: `address` has none of base.Channel.address's forms.
            OSError: a certificate file can't be read.
        """
        return LaneChannel(address, tls, self._tasks, self._message_limit_bytes)


class LaneChannel:
    """base.Channel over links; carries the calls that wait for one."""

    def __init__(self, address: str, tls: TlsOptions | None, tasks: asyncio.TaskGroup, message_limit_bytes: int) -> None:
        target = parse_address(address)
        host = target.host if isinstance(target, TcpAddress) else "localhost"
        server_name = (tls.server_name or host) if tls is not None else None
        self._address = address
        self._authority = tls.server_name if tls is not None and tls.server_name else target.authority
        self._scheme = "http" if tls is None else "https"
        self._dialer = Dialer(target, tls.ssl_context() if tls is not None else None, server_name)
        self._tasks = tasks
        self._message_limit_bytes = message_limit_bytes
        self._links: list[Link] = []  # that take calls
        self._draining: set[Link] = set()  # whose last calls are still going on
        self._waiting: dict[LaneCall, None] = {}  # in order; a dict, so that a cancelled one leaves at once
        self._dial: asyncio.Task[Link | str] | None = None
        self._closed = False
        self._connections = 0

    @property
    def address(self) -> str:
        return self._address

    @property
    def connections(self) -> int:
        return self._connections

    @property
    def open_calls(self) -> int:
        """How many calls are not over, those that wait included."""
        return len(self._waiting) + sum(link.open_streams for link in (*self._links, *self._draining))

    def open_stream(
        self,
        method: str,
        request: bytes,
        sink: StreamSink,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> WireCall:
        """Do what base.Channel.open_stream says."""
        call = LaneCall(self, method, request, sink, timeout_s, metadata)
        self._begin(call, self._refusal(request, timeout_s, metadata))
        return call

    def open_duplex(self, method: str, sink: DuplexSink, *, timeout_s: float | None = None, metadata: Metadata = ()) -> DuplexCall:
        """Do what base.Channel.open_duplex says."""
        call = LaneDuplexCall(self, method, sink, timeout_s, metadata, self._message_limit_bytes)
        self._begin(call, self._refusal(b"", timeout_s, metadata))
        return call

    async def unary(self, method: str, request: bytes, *, timeout_s: float, metadata: Metadata = ()) -> bytes:
        """Do what base.Channel.unary says."""
        return await call_unary(self, method, request, timeout_s=timeout_s, metadata=metadata)

    async def aclose(self) -> None:
        """Do what base.Channel.aclose says."""
        self._closed = True
        self._refuse_waiting("the channel was closed")
        links = [*self._links, *self._draining]
        for link in links:
            link.close("the channel was closed")
        if self._dial is not None:
            self._dial.cancel()
            await asyncio.wait([self._dial])
        for link in links:
            await link.closed

    # -- calls that wait -----------------------------------------------------------------------------------

    def _refusal(self, request: bytes, timeout_s: float | None, metadata: Metadata) -> CallStatus | None:
        """Return why a call can't even begin."""
        if self._closed:
            return CallStatus(Code.UNAVAILABLE, f"the channel to {self._address} is closed", connection_lost=True)
        if timeout_s is not None and timeout_s <= 0:
            return CallStatus(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        if len(request) > self._message_limit_bytes:
            return CallStatus(Code.RESOURCE_EXHAUSTED, f"a request of {len(request)} bytes; the limit is {self._message_limit_bytes}")
        try:
            check_metadata(metadata)
        except MetadataInvalid as exc:
            return CallStatus(Code.INTERNAL, str(exc))
        return None

    def _begin(self, call: LaneCall, refusal: CallStatus | None) -> None:
        if refusal is not None:
            call.end(refusal)
            return
        for link in self._links:
            if link.has_room:
                link.start(call)
                return
        self._wait(call)

    def _wait(self, call: LaneCall) -> None:
        if len(self._waiting) >= WAITING_LIMIT:
            call.end(CallStatus(Code.RESOURCE_EXHAUSTED, f"{WAITING_LIMIT} calls are waiting for a connection to {self._address}"))
        else:
            self._waiting[call] = None
            self._dial_if_needed()

    def drop(self, call: LaneCall) -> None:
        """Take a call off the queue that was cancelled, or whose deadline has passed."""
        self._waiting.pop(call, None)

    def credit(self, call: LaneCall) -> None:
        """A call that waits has received nothing yet."""

    def feed(self, call: LaneCall) -> None:
        """A call that waits keeps what it has to send until it is started."""

    def _admit(self) -> None:
        """Give waiting calls to links with room, the oldest first."""
        for link in self._links:
            while self._waiting and link.has_room:
                call = next(iter(self._waiting))
                del self._waiting[call]
                link.start(call)
        if self._waiting:
            self._dial_if_needed()

    def _refuse_waiting(self, reason: str) -> None:
        for call in list(self._waiting):
            call.end(self._unreachable(reason))

    def _unreachable(self, reason: str) -> CallStatus:
        return CallStatus(Code.UNAVAILABLE, f"no connection to {self._address}: {reason}", connection_lost=True)

    # -- links ---------------------------------------------------------------------------------------------

    def _dial_if_needed(self) -> None:
        if self._dial is not None or self._closed or len(self._links) >= LINKS_LIMIT:
            return
        if self._dialer.resting:
            if not self._links:  # or calls that waited for room on a link would wait for ever
                self._refuse_waiting(self._dialer.last_failure)
            return
        dialling = self._dial_link()
        try:
            self._dial = self._tasks.create_task(dialling)
        except RuntimeError:  # the task group is closing
            dialling.close()
            self._refuse_waiting("the gateway is shutting down")
            return
        # A callback and not the task's own end: it runs even where the task was cancelled before its first step.
        self._dial.add_done_callback(self._dialled)

    async def _dial_link(self) -> Link | str:
        """Return a link, or why there is none."""
        try:
            return await self._dialer.dial(self._make_link)
        except DialFailed as exc:
            return str(exc)
        except Exception as exc:
            logger.exception("dialling %s failed", self._address)
            return str(exc)

    def _make_link(self) -> Link:
        connection = ClientConnection[LaneCall](self._scheme, self._authority, message_limit_bytes=self._message_limit_bytes)
        return Link(connection, self._link_changed)

    def _dialled(self, task: asyncio.Task[Link | str]) -> None:
        self._dial = None
        made = "the gateway is shutting down" if task.cancelled() else task.result()
        if isinstance(made, str):
            if not self._links:
                self._refuse_waiting(made)
        elif self._closed:
            made.close("the channel was closed")
        elif made.usable:
            self._links.append(made)
            self._connections += 1
            self._admit()
        else:  # lost between its greeting and now
            self._refuse_waiting("the worker closed the connection")

    def _link_changed(self, link: Link) -> None:
        if not link.usable and link in self._links:
            self._links.remove(link)
            self._draining.add(link)
        if link.closed.done() or not link.open_streams:
            self._draining.discard(link)
        if self._waiting:
            self._admit()
