"""What one caller may take of the gateway: runs at once, starts and bytes a minute.

Owned by the composition root and asked by the hub, the one way in of all front doors; without limits there is no Quotas, and
nothing is counted. A start is counted when everything else about it was right, also where its pool refuses it then. Bytes are
charged to the caller whose run it is, a batch at a time, as its readers take them: one addition. Over a limit new starts and
new readers are refused; what runs goes on at its speed, so a minute's bytes may be exceeded by what was under way.

Anonymous callers are told apart by their address, an IPv6 one by its /64. Those on this machine (loopback, Unix sockets)
aren't counted unless the settings say so: they are the operator, or a proxy that speaks for everybody.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol
from weakref import WeakValueDictionary

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from gateway import timers
from gateway.caller import ANONYMOUS, Caller
from gateway.errors import GatewayError
from gateway.quota import Quota

WINDOW_S = 60
# Bytes of a minute are known to this part of it.
SLOTS = 12
# Callers that are counted on their own; those beyond share one account.
ACCOUNTS_LIMIT = 100_000
# When a place among the open runs becomes free nobody knows.
STREAMS_RETRY_S = 1.0
_OTHERS = "others"
# How the accounts of anonymous callers begin.
_AT = f"{ANONYMOUS.id} at "


@dataclass(frozen=True, slots=True)
class CallerLimits:
    """The limits of one caller; None for no limit. `streams`: runs that are queued or running at once."""

    streams: int | None = None
    starts_per_minute: int | None = None
    bytes_per_minute: int | None = None

    def __bool__(self) -> bool:
        return self != _UNLIMITED


_UNLIMITED = CallerLimits()


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """`default` is every caller's that `callers` doesn't name by its id. `counts_loopback`: see the module."""

    default: CallerLimits = _UNLIMITED
    callers: Mapping[str, CallerLimits] = field(default_factory=dict)
    counts_loopback: bool = False

    def __bool__(self) -> bool:
        """Whether anybody is limited."""
        return bool(self.default) or any(self.callers.values())


class StartCounter(Protocol):
    """Who counts the starts of all gateways."""

    async def hit(self, name: str, limit: int) -> tuple[bool, int, float] | None:
        """Count a start of a caller; return whether the limit allows it, what is left, and when there is more, in Unix seconds.

        None where nobody can say.
        """


class Account:
    """What one caller has taken. `sent_bytes` is added to by its runs' readers."""

    __slots__ = ("__weakref__", "_everywhere", "_keep", "_marks", "_starts", "limits", "name", "open_runs", "sent_bytes")

    def __init__(self, name: str, limits: CallerLimits, starts: MovingWindowRateLimiter, keep: Callable[[Account], None]) -> None:
        """`keep` has its slots turned, until there is nothing to remember."""
        self.name = name
        self.limits = limits
        self.open_runs = 0
        self.sent_bytes = 0
        self._starts = starts
        self._keep = keep
        # What is left of the starts on all gateways, until when; as of this one's last start.
        self._everywhere: tuple[int, float] | None = None
        # `sent_bytes` as it was at the beginnings of the last slots, oldest first.
        self._marks: deque[int] = deque([0], maxlen=SLOTS)

    @property
    def minute_bytes(self) -> int:
        """What was sent in the last minute, or up to a slot less."""
        return self.sent_bytes - self._marks[0]

    def check_start(self) -> None:
        """Count a start.

        Raises:
            GatewayError: `quota-exceeded`.
        """
        limits = self.limits
        if limits.streams is not None and self.open_runs >= limits.streams:
            self._refuse(self._streams(limits.streams), f"{self.open_runs} runs are open", STREAMS_RETRY_S)
        self.check_bytes()
        if limits.starts_per_minute is not None and not self._starts.hit(RateLimitItemPerMinute(limits.starts_per_minute), self.name):
            quota = self._starts_quota(limits.starts_per_minute)
            self._refuse(quota, f"{quota.limit} runs were started within a minute", quota.reset_s)

    async def check_everywhere(self, counter: StartCounter) -> None:
        """Count a start for all gateways.

        Raises:
            GatewayError: `quota-exceeded`.
        """
        limit = self.limits.starts_per_minute
        if limit is None or (counted := await counter.hit(self.name, limit)) is None:
            return
        is_allowed, remaining, reset_at = counted
        self._everywhere = remaining, reset_at
        if not is_allowed:
            quota = self._starts_quota(limit)
            self._refuse(quota, f"{limit} runs were started within a minute", quota.reset_s)

    def check_bytes(self) -> None:
        """Return if more may be read; to be asked ahead of each reader.

        Raises:
            GatewayError: `quota-exceeded`.
        """
        self._keep(self)
        limit = self.limits.bytes_per_minute
        if limit is not None and self.minute_bytes >= limit:
            quota = self._bytes(limit)
            self._refuse(quota, f"{self.minute_bytes} bytes were read within a minute", quota.reset_s)

    def quotas(self) -> list[Quota]:
        """Return all limits of the caller and what is left of each."""
        limits, quotas = self.limits, []
        if limits.streams is not None:
            quotas.append(self._streams(limits.streams))
        if limits.starts_per_minute is not None:
            quotas.append(self._starts_quota(limits.starts_per_minute))
        if limits.bytes_per_minute is not None:
            quotas.append(self._bytes(limits.bytes_per_minute))
        return quotas

    def turn(self) -> bool:
        """Begin a new slot; return whether anything is left to remember."""
        self._marks.append(self.sent_bytes)
        return self.open_runs > 0 or self.minute_bytes > 0

    def _streams(self, limit: int) -> Quota:
        return Quota("streams", limit, "concurrent-requests", None, max(0, limit - self.open_runs), None)

    def _starts_quota(self, limit: int) -> Quota:
        stats = self._starts.get_window_stats(RateLimitItemPerMinute(limit), self.name)
        remaining, reset_at, now = stats.remaining, stats.reset_time, time.time()
        if self._everywhere is not None and self._everywhere[0] < remaining and now < self._everywhere[1]:
            remaining, reset_at = self._everywhere
        return Quota("starts", limit, "requests", WINDOW_S, remaining, min(max(0.0, reset_at - now), float(WINDOW_S)))

    def _bytes(self, limit: int) -> Quota:
        remaining = max(0, limit - self.minute_bytes)
        return Quota("bytes", limit, "content-bytes", WINDOW_S, remaining, None if remaining else self._enough_in_s(limit))

    def _enough_in_s(self, limit: int) -> float:
        """Return after how long less than the limit will have been sent within a minute, if nothing more is."""
        marks = [*self._marks, self.sent_bytes]
        slots = next((index for index, mark in enumerate(marks) if self.sent_bytes - mark < limit), len(marks))
        return WINDOW_S / SLOTS * (slots + SLOTS - len(self._marks))

    def _refuse(self, quota: Quota, sentence: str, retry_after_s: float | None) -> NoReturn:
        raise _exceeded(quota, sentence, retry_after_s, [quota, *(other for other in self.quotas() if other.name != quota.name)])


class Quotas:
    """The accounts of all callers, each there as long as there is something to remember of it."""

    def __init__(self, limits: QuotaLimits) -> None:
        self._limits = limits
        # Those whose slots turn; and all that anybody has, so that an ended run which is read again charges its caller's one.
        self._accounts: dict[str, Account] = {}
        self._known: WeakValueDictionary[str, Account] = WeakValueDictionary()
        self._starts = MovingWindowRateLimiter(MemoryStorage())
        self._timer: timers.Timer | None = None

    def __len__(self) -> int:
        return len(self._accounts)

    def change(self, limits: QuotaLimits) -> None:
        """Have other limits from now on; what was taken already counts."""
        self._limits = limits
        for account in self._known.values():
            account.limits = self._limits_of(account.name)

    def account(self, caller: Caller) -> Account | None:
        """Return a caller's account; None for one that is not limited."""
        name = self._name(caller)
        if name is None:
            return None
        account = self._known.get(name)
        if account is None:
            limits = self._limits_of(name)
            if not limits:
                return None
            if len(self._known) >= ACCOUNTS_LIMIT:
                name, limits = _OTHERS, self._limits.default
            account = self._known.setdefault(name, Account(name, limits, self._starts, self._keep))
        self._keep(account)
        return account

    def _keep(self, account: Account) -> None:
        self._accounts[account.name] = account
        if self._timer is None:
            self._timer = timers.running().call_later(WINDOW_S / SLOTS, self._turn)

    def _limits_of(self, name: str) -> CallerLimits:
        caller_id = ANONYMOUS.id if name.startswith(_AT) else name
        return self._limits.callers.get(caller_id, self._limits.default)

    def _name(self, caller: Caller) -> str | None:
        if caller != ANONYMOUS:
            return caller.id
        network = None if caller.address is None else _network(caller.address)
        if network is None or network.startswith(("127.", "::/")):
            return ANONYMOUS.id if self._limits.counts_loopback else None
        return f"{_AT}{network}"

    def _turn(self) -> None:
        self._timer = None
        for account in [account for account in self._accounts.values() if not account.turn()]:
            # Its starts are remembered by their own storage.
            del self._accounts[account.name]
        if self._accounts:
            self._timer = timers.running().call_later(WINDOW_S / SLOTS, self._turn)


def _exceeded(quota: Quota, sentence: str, retry_after_s: float | None, quotas: list[Quota]) -> GatewayError:
    """Return the error for a limit that is reached: the sentence, then what is allowed; `quotas` are all of the caller's."""
    window = "at once" if quota.window_s is None else "a minute"
    allowed = {"streams": f"{quota.limit} {window}", "starts": f"{quota.limit} starts {window}", "bytes": f"{quota.limit} bytes {window}"}
    # For those who have no header fields to read: WebSocket and gRPC clients.
    extra: dict[str, Any] = {"violated-policies": [quota.name], "quotas": [one._asdict() for one in quotas]}
    if retry_after_s is not None:
        extra["retry_after_ms"] = math.ceil(retry_after_s * 1000)
    detail = f"{sentence}; the caller's limit is {allowed[quota.name]}"
    return GatewayError("quota-exceeded", detail, retry_after_s=retry_after_s, extra=extra, quotas=quotas)


def _network(address: str) -> str:
    """Return the address, or the /64 of an IPv6 one, which is one subscriber's; an IPv4 one in IPv6 clothes is itself."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((parsed, 64), strict=False))
