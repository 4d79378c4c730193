"""One-time tickets: what a page puts into the URL of an EventSource or a WebSocket, which can't send a header.

A ticket is for one path and its caller, for TTL_S seconds, once. It is used when it lets somebody in; after that it is good
for nothing but to go on with the run that it started (the front door looks that up), which is what an EventSource does with
its one URL. So who reads it later in somebody's log can start nothing with it. Source: RFC 9700 §2.3, on tokens in URLs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from gateway.auth.keys import KeyRing
from gateway.auth.passes import Passes
from gateway.caller import Caller
from gateway.errors import GatewayError

TTL_S = 60.0
USED_LIMIT = 100_000


class TicketUses(Protocol):
    """Which tickets were used; the shared log's where there is one."""

    async def use_ticket(self, ticket: str, ttl_s: float) -> bool:
        """Note that a ticket is used, for `ttl_s`; False: it was used before.

        Raises:
            GatewayError: that can't be said now.
        """


class Ticket(NamedTuple):
    """A ticket that is ours. `caller` is who comes with it; `age_s` how long ago it was given."""

    number: str
    path: str
    caller: Caller
    age_s: float


class Tickets:
    """Gives tickets and reads them."""

    def __init__(self, secret: str | None, keys: KeyRing, *, clock: Callable[[], float] = time.time) -> None:
        self._passes = Passes("ticket", secret, keys)
        self._clock = clock

    def give(self, caller: Caller, path: str) -> str:
        """Return a new ticket for a path, which the caller may use instead of its credential."""
        return self._passes.write(caller, {"number": secrets.token_urlsafe(12), "path": path})

    def read(self, text: str) -> Ticket:
        """Return a ticket, used or not, however old.

        Raises:
            GatewayError: `invalid-credential`, it is none of ours; `auth-expired`: its caller's own credential.
        """
        caller, more, signed_at = self._passes.read(text)
        number = str(more["number"])
        return Ticket(number, str(more["path"]), replace(caller, ticket=number), self._clock() - signed_at)


class UsedTickets:
    """TicketUses of one process, at most USED_LIMIT."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Until when each is kept, in that order.
        self._used: dict[str, float] = {}

    async def use_ticket(self, ticket: str, ttl_s: float) -> bool:
        """See TicketUses."""
        now = self._clock()
        while self._used and (oldest := next(iter(self._used))) and self._used[oldest] <= now:
            del self._used[oldest]
        if ticket in self._used:
            return False
        if len(self._used) >= USED_LIMIT:
            raise GatewayError("auth-unavailable", "Too many tickets were used in the last minute", retry_after_s=5)
        self._used[ticket] = now + ttl_s
        return True
