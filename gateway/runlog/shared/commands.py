"""The one connection that all commands of this gateway go over, and whether the log is available.

`run` connects, greets (the scripts, which server it is, our lease), then sends in rounds: one round is all that
waits, questions of any task and the writer's batches, as one pipeline, and its replies. While a round is under way
the next one collects, so the busier it is the less each command costs; after a round the writer's batches collect for
`linger_s`, questions don't wait for that. A lost connection ends every question that was asked; the writer keeps its own
and sends them again.

Bounds: `requests_limit` questions wait, more are refused; a round takes at most `operation_timeout_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import structlog

from gateway.errors import GatewayError
from gateway.runlog.shared.address import Address
from gateway.runlog.shared.backoff import Backoff
from gateway.runlog.shared.link import Command, Link, LinkLost, Refusal
from gateway.runlog.shared.options import SharedLogOptions

log = structlog.get_logger("gateway.runlog")


class Request(NamedTuple):
    """A command and who is told its reply: what the server said, a Refusal, or the LinkLost that came instead."""

    command: Command
    settle: Callable[[Any], None]


class Source(Protocol):
    """Who has commands to send that are made only when a round begins: the writer."""

    def take(self) -> list[Request]:
        """Return what is to be sent now; empty when there is nothing."""


class Commands:
    """See the module. `greet(link)` is called on each new connection, before anything else is sent on it."""

    def __init__(self, address: Address, gateway_id: str, options: SharedLogOptions, greet: Callable[[Link], Awaitable[None]]) -> None:
        self._address = address
        self._name = f"gateway-{gateway_id}"
        self._options = options
        self._greet = greet
        self._source: Source | None = None
        self._waiting: deque[Request] = deque()
        self._wake = asyncio.Event()
        self._question = asyncio.Event()
        self._connected = asyncio.Event()
        self._listeners: list[Callable[[bool], None]] = []
        self._reason = f"{address}: not connected yet"

    @property
    def available(self) -> bool:
        """Whether the log can be used now."""
        return self._connected.is_set()

    def attach(self, source: Source) -> None:
        """Name the one who is asked for more at each round."""
        self._source = source

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(available)` whenever that changes; it must not raise or block."""
        self._listeners.append(listener)

    def wake(self) -> None:
        """Begin a round: the source has something."""
        self._wake.set()

    async def connected(self) -> None:
        """Wait until the log is available."""
        await self._connected.wait()

    async def ask(self, *command: str | bytes | int) -> Any:
        """Send one command and return its reply. When the caller is cancelled it may have been carried out.

        Raises:
            GatewayError: `log-unavailable`: it isn't, or was lost meanwhile; the command may have been carried out.
                `internal`: the server refused just this command.
        """
        future = self.request(*command)
        try:
            # Behind one full round at most; the round itself has its own time-out.
            async with asyncio.timeout(2 * self._options.operation_timeout_s):
                return await future
        except TimeoutError as exc:
            raise self._unavailable("no answer in time") from exc

    def request(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """Queue one command and return its reply's future, which fails as `ask` does.

        Raises:
            GatewayError: `log-unavailable`, at once.
        """
        self._check()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(reply: Any) -> None:
            if future.done():
                return
            if isinstance(reply, LinkLost) or (isinstance(reply, Refusal) and reply.trouble):
                future.set_exception(self._unavailable(str(reply)))
            elif isinstance(reply, Refusal):
                future.set_exception(GatewayError("internal", f"The shared log refuses {command[0]!r}: {reply}"))
            else:
                future.set_result(reply)

        self._ask(Request(command, settle))
        return future

    def tell(self, *command: str | bytes | int) -> None:
        """Queue one command whose reply nobody waits for; dropped while the log is unavailable."""
        if self.available and len(self._waiting) < self._options.requests_limit:
            self._ask(Request(command, _ignore))

    def _ask(self, request: Request) -> None:
        self._waiting.append(request)
        self._question.set()
        self._wake.set()

    async def run(self) -> None:
        """Keep a connection and send over it, until cancelled."""
        backoff = Backoff(self._options.backoff_min_s, self._options.backoff_max_s)
        try:
            while True:
                try:
                    await self._session()
                except LinkLost as exc:
                    self._lost(str(exc))
                except Exception as exc:
                    # Who answers so isn't to be relied on, but whatever it says, it must not end the gateway.
                    self._lost(f"{self._address}: an answer makes no sense: {exc!r}")
                await backoff.wait()
        finally:
            self._lost(f"{self._address}: closed")

    async def _session(self) -> None:
        """Use one connection for as long as it is of use."""
        link = await Link.open(self._address, timeout_s=self._options.operation_timeout_s, name=self._name)
        try:
            await self._greet(link)
            log.info("shared log available", address=str(self._address))
            self._connected.set()
            self._tell_listeners(True)
            while True:
                requests = self._round()
                if requests:
                    await self._send(link, requests)
                    await self._linger()
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            await link.close()

    def _round(self) -> list[Request]:
        self._question.clear()
        requests = list(self._waiting)
        self._waiting.clear()
        if self._source is not None:
            requests.extend(self._source.take())
        return requests

    async def _linger(self) -> None:
        """Let batches collect, until somebody asks something: a round costs more than a batch."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.linger_s):
                await self._question.wait()

    async def _send(self, link: Link, requests: list[Request]) -> None:
        replies: list[Any] = []
        lost: LinkLost | None = LinkLost("the connection was closed")
        try:
            await link.exchange([request.command for request in requests], replies, timeout_s=self._options.operation_timeout_s)
            lost = None
        except LinkLost as exc:
            lost = exc
            raise
        finally:
            # Also when this task is cancelled: everybody is told.
            for number, request in enumerate(requests):
                request.settle(replies[number] if number < len(replies) else lost)
        for reply in replies:
            if isinstance(reply, Refusal) and reply.trouble:
                raise LinkLost(f"the server refuses commands: {reply}")

    def _lost(self, reason: str) -> None:
        if reason != self._reason:
            log.warning("shared log unavailable", address=str(self._address), reason=reason)
        self._reason = reason
        was_available = self.available
        self._connected.clear()
        waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            request.settle(LinkLost(reason))
        if was_available:
            self._tell_listeners(False)

    def _tell_listeners(self, available: bool) -> None:
        for listener in self._listeners:
            listener(available)

    def _check(self) -> None:
        if not self.available:
            raise self._unavailable(self._reason)
        if len(self._waiting) >= self._options.requests_limit:
            raise self._unavailable(f"{self._options.requests_limit} questions wait for it already")

    def _unavailable(self, reason: str) -> GatewayError:
        detail = f"The shared log can't be used: {reason}"
        return GatewayError("log-unavailable", detail, retry_after_s=max(1.0, self._options.backoff_max_s))


def _ignore(reply: Any) -> None:
    if isinstance(reply, Refusal):
        log.warning("shared log refused a message", reason=str(reply))
