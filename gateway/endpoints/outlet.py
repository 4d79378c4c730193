"""The sending half of a WebSocket: the runs that have something to say, and the only place that sends.

Owned by a socket (duplex.py), whose writer task is `run`. It takes one batch from each ready run in turn, so
that no run starves another; while a send blocks nothing is taken, which makes the runs' workers wait. While the
task has nothing to do, a run's wake writes its batch from where it was called: all its frames at once, past ASGI,
where our own server offers that (ClientLink in connection.py has the same for HTTP).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.caller import Caller
from gateway.codec import websocket as codec
from gateway.codec.websocket import BadFrame
from gateway.endpoints.connection import LINK_EXTENSION
from gateway.endpoints.sending import Sending
from gateway.events import Chunks, Event
from gateway.runs.policy import ReaderOptions
from gateway.runs.source import RunSource
from gateway.runs.subscription import Subscription

WRITE_LIMIT_BYTES = 64 * 1024


class MessageEncoder(Protocol):
    """What writes one run's events as text messages."""

    def encode(self, event: Event) -> list[bytes]: ...

    def cut(self) -> list[bytes]:
        """Return what the client is told when its reader fell too far behind for its overflow policy."""


class SocketLink(Protocol):
    """A WebSocket as our own server's protocol offers it."""

    def is_gone(self) -> bool:
        """Return whether the client has hung up, also where what it sent before is yet to be read."""

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""

    def write_messages(self, messages: Sequence[bytes]) -> bool:
        """Write text messages now; False, with nothing written, where a send would have to wait, or nobody reads."""


@dataclass(slots=True, eq=False)
class SocketRun:
    """One run on one socket.

    `credit`: how many chunks its client has room for; None for any number. With none left, chunks wait in the run's log,
    where they count as this reader's lag, and what stands behind them waits too; a status or a gap needs no credit, nor
    does an end that is next. `sending`: what its client sends to it; None for one that takes nothing.
    """

    run: RunSource
    encoder: MessageEncoder
    reader: Subscription
    credit: int | None = None
    sending: Sending | None = None

    def take(self) -> Event | None:
        """Return the next event that may be sent now, using credit for its chunks; None while there is none."""
        event = self.reader.take(self.credit)
        if self.credit is not None and isinstance(event, Chunks):
            self.credit -= len(event.payloads)
        return event


class Outlet:
    """What sends on one socket.

    `say` queues a frame about the socket itself; a client that makes more than SAY_LIMIT of them due without
    reading them breaks the protocol.
    """

    SAY_LIMIT = 1000

    def __init__(self, websocket: WebSocket, *, write_timeout_s: float) -> None:
        self._websocket = websocket
        self._write_timeout_s = write_timeout_s
        self.link: SocketLink | None = (websocket.scope.get("extensions") or {}).get(LINK_EXTENSION)
        self._said: list[str] = []
        # Insertion-ordered: the order in which the runs became ready.
        self._ready: dict[SocketRun, None] = {}
        self._signal = asyncio.Event()
        # The task waits, so that a wake may write; and what it could not write, with the run that it is of.
        self._parked = False
        self._unsent: tuple[SocketRun, list[bytes]] | None = None
        self._finishing = False

    def say(self, frame: str) -> None:
        """Queue a frame about the socket.

        Raises:
            BadFrame: too many are waiting.
        """
        if len(self._said) >= self.SAY_LIMIT:
            raise BadFrame("too many frames to answer", 4429)
        self._said.append(frame)
        self._signal.set()

    def attach(
        self, run: RunSource, caller: Caller, encoder: MessageEncoder, options: ReaderOptions, credit: int | None = None
    ) -> SocketRun:
        """Subscribe to a run and send what it says; return it as a run of this socket."""
        entry: SocketRun

        def wake() -> None:
            self._mark_ready(entry)

        entry = SocketRun(run, encoder, run.subscribe(wake, caller, options), credit)
        entry.reader.format = "websocket"
        self._mark_ready(entry)
        return entry

    def grant(self, entry: SocketRun, credit: int) -> None:
        """Add to a run's credit, and send what was waiting for it; without effect where delivery is not limited.

        Raises:
            BadFrame: the sum would be more than a client may grant; as in HTTP/2 (RFC 9113 §6.9.1) it is not cut, since
                the two sides would then count differently.
        """
        if entry.credit is None:
            return
        if entry.credit + credit > codec.CREDIT_LIMIT:
            raise BadFrame(f"the credit of a run is at most {codec.CREDIT_LIMIT}; it has {entry.credit}")
        entry.credit += credit
        self._mark_ready(entry)

    def drop(self, entry: SocketRun) -> None:
        """Take nothing more from a run."""
        self._ready.pop(entry, None)

    def finish(self) -> None:
        """Have `run` return once all that is due has been sent."""
        self._finishing = True
        self._signal.set()

    async def run(self, on_finished: Callable[[SocketRun], None]) -> None:
        """Send until `finish` or cancelled; `on_finished` is told of each run whose end was sent, or whose reader was cut."""
        while True:
            if not self._said and not self._ready:
                if self._finishing:
                    return
                self._parked = self.link is not None
                await self._signal.wait()
                self._parked = False
            self._signal.clear()
            if self._unsent is not None:
                (entry, messages), self._unsent = self._unsent, None
                await self._send_messages(entry, messages, on_finished)
            said, self._said = self._said, []
            for frame in said:
                await self._send(frame)
            for entry in list(self._ready):
                await self._serve(entry, on_finished)

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket, once nothing else sends; one that is closed already stays as it is."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._in_time(self._websocket.close(code, codec.close_reason(reason)))

    def _mark_ready(self, entry: SocketRun) -> None:
        self._ready[entry] = None
        if self._parked:
            self._push(entry)
        else:
            self._signal.set()

    def _push(self, entry: SocketRun) -> None:
        """Write what a run has, from where it was woken; what the socket doesn't take at once is the task's."""
        while (event := entry.take()) is not None:
            messages = entry.encoder.encode(event)
            # The end is the task's: whoever is told of it may leave the run, which is busy waking its readers.
            if entry.reader.finished or sum(map(len, messages)) > WRITE_LIMIT_BYTES or not self._write(messages):
                self._unsent = entry, messages
                self._unpark()
                return
        if entry.reader.cut:
            self._unpark()
        else:
            del self._ready[entry]

    def _unpark(self) -> None:
        """Leave the rest to the task."""
        self._parked = False
        self._signal.set()

    async def _serve(self, entry: SocketRun, on_finished: Callable[[SocketRun], None]) -> None:
        """Send one batch of one run."""
        if entry not in self._ready:
            return
        event = entry.take()
        if event is not None:
            await self._send_messages(entry, entry.encoder.encode(event), on_finished)
        elif entry.reader.cut:
            await self._send_messages(entry, entry.encoder.cut(), on_finished, last=True)
        else:
            del self._ready[entry]

    async def _send_messages(
        self, entry: SocketRun, messages: list[bytes], on_finished: Callable[[SocketRun], None], *, last: bool = False
    ) -> None:
        if entry not in self._ready:
            return
        for part in _parts(messages):
            if not self._write(part):
                for message in part:
                    await self._send(message.decode())
                    if entry not in self._ready:
                        # Dropped while the send waited: its client has left it, and may use its id for another run.
                        return
        if last or entry.reader.finished:
            on_finished(entry)

    def _write(self, messages: Sequence[bytes]) -> bool:
        return self.link is not None and self.link.write_messages(messages)

    async def _send(self, text: str) -> None:
        await self._in_time(self._websocket.send({"type": "websocket.send", "text": text}))

    async def _in_time(self, sending: Awaitable[None]) -> None:
        """Await a send; cut the connection where it takes too long."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await sending
        except TimeoutError:
            if self.link is not None:
                self.link.abort()
            raise WebSocketDisconnect(1006, "the reader made no progress") from None


def _parts(messages: list[bytes]) -> Iterator[list[bytes]]:
    """Cut a batch where one write would carry more than WRITE_LIMIT_BYTES; a larger message is a part of its own."""
    part: list[bytes] = []
    size = 0
    for message in messages:
        size += len(message)
        if size > WRITE_LIMIT_BYTES and part:
            yield part
            part, size = [], len(message)
        part.append(message)
    if part:
        yield part
