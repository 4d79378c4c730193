"""What a run does when its readers leave, lag, or when it takes too long; given by the request, limited by the settings.

`RunPolicy` is of the run and the same for everybody, `RunLimits` are of all runs, `ReaderOptions` of one reader. Values without behaviour:
run.py applies the first, subscription.py and the run the second. Source: docs of the protocol, section 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from gateway.errors import FieldError, GatewayError

_GRACE = re.compile(r"grace:([0-9]{1,10})(ms|s)")


class Leaving(StrEnum):
    """The kinds of OnDisconnect."""

    CANCEL = "cancel"
    GRACE = "grace"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class OnDisconnect:
    """What the leaving of the last subscriber means; observers are not counted, and an explicit cancel always wins.

    CANCEL: the worker's call is cancelled at once. GRACE: it is cancelled when nobody came back within `grace_s`;
    until then the place of the last subscriber is kept. CONTINUE: nothing. `str()` is the form in which requests say it.
    """

    kind: Leaving = Leaving.CANCEL
    grace_s: float = 0.0

    def __str__(self) -> str:
        if self.kind is not Leaving.GRACE:
            return str(self.kind)
        milliseconds = round(self.grace_s * 1000)
        return f"grace:{milliseconds}ms" if milliseconds % 1000 else f"grace:{milliseconds // 1000}s"

    @classmethod
    def parse(cls, name: str, text: str, *, limit_s: float) -> OnDisconnect:
        """Return the policy that the text of option `name` says: `cancel`, `grace:30s`, `grace:500ms` or `continue`.

        Raises:
            GatewayError: `invalid-option`, naming what is allowed; also for a grace of nothing or longer than `limit_s`.
        """
        if text in (Leaving.CANCEL, Leaving.CONTINUE):
            return cls(Leaving(text))
        match = _GRACE.fullmatch(text)
        grace_s = 0.0 if match is None else int(match[1]) / (1000 if match[2] == "ms" else 1)
        if not 0 < grace_s <= limit_s:
            allowed = f"cancel, continue, grace:<n>s or grace:<n>ms from 1 ms to {limit_s:g} s, such as grace:30s"
            raise invalid_option(name, f"is {text[:40]!r}; allowed: {allowed}")
        return cls(Leaving.GRACE, grace_s)


CANCEL = OnDisconnect()
CONTINUE = OnDisconnect(Leaving.CONTINUE)


class Overflow(StrEnum):
    """What happens when a reader lags by more than its `lag_bytes`.

    BLOCK: the call's flow control stops the worker until it has caught up. LATEST: the reader is moved to the newest
    chunk and told of the gap. DISCONNECT: its connection is closed without an `end`, so that it may come back by id.
    """

    BLOCK = "block"
    LATEST = "latest"
    DISCONNECT = "disconnect"


class Role(StrEnum):
    """What a reader is to the run. An OBSERVER neither slows the worker nor keeps the run alive."""

    SUBSCRIBER = "subscriber"
    OBSERVER = "observer"


class Cause(StrEnum):
    """Why a run was cancelled; said in the end event's problem."""

    DISCONNECT = "the last reader left"
    GRACE = "the last reader left and nobody came back in time"
    CLIENT = "it was cancelled by a client"
    RELOAD = "the tool's code has changed"
    SHUTDOWN = "the gateway is shutting down"
    FENCED = "the other gateways took this one for dead, or the shared log has lost the run"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """The run's deadlines besides its whole budget, which is `ToolCall.timeout_s`; seconds, None for no limit of its own.

    `queue_s`: waiting for a worker. `first_chunk_s`: from the worker to the first chunk. `idle_s`: the silence after
    a chunk; before the first one, too, where `first_chunk_s` is None. All stay within the one budget: the gRPC deadline is
    what the queue has left of it.
    """

    queue_s: float | None = None
    first_chunk_s: float | None = None
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """The policy of one run."""

    on_disconnect: OnDisconnect = CANCEL
    deadlines: Deadlines = Deadlines()


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The bounds that the settings put on every run.

    `log_bytes` and `log_chunks` bound its log; `plain_log_bytes` does where it ends with its last subscriber and nobody has a
    key to it: then a reader that comes back is an exception, and what it is too late for is a gap.
    """

    log_bytes: int = 4 * 1024 * 1024
    plain_log_bytes: int = 160 * 1024
    log_chunks: int = 100_000
    heartbeat_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How one reader reads.

    `lag_bytes`: how far it may be behind before `overflow` applies. `after`: the number of the last chunk that it has,
    None for a first connection. `live`: begin with the next chunk that comes; `after` is not looked at then.
    """

    role: Role = Role.SUBSCRIBER
    overflow: Overflow = Overflow.BLOCK
    lag_bytes: int = 256 * 1024
    after: int | None = None
    live: bool = False


READ_ALL = ReaderOptions()

Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(name: str, text: str, choices: type[Choice]) -> Choice:
    """Return the member of `choices` that an option's text names.

    Raises:
        GatewayError: `invalid-option`, naming what is allowed.
    """
    try:
        return choices(text)
    except ValueError:
        raise invalid_option(name, f"is {text[:40]!r}; allowed: {', '.join(choices)}") from None


def invalid_option(name: str, detail: str) -> GatewayError:
    """Return the error for the option `name`; `detail` says what is wrong with it and what is allowed."""
    return GatewayError("invalid-option", f"{name} {detail}", errors=[FieldError(name, detail)])
