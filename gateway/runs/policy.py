"""What a run does when its readers leave, lag, or when it takes too long; given by the request, limited by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from gateway.errors import FieldError, GatewayError


class OnDisconnect(StrEnum):
    """What the leaving of the last reader means. CANCEL: the worker's call is cancelled at once."""

    CANCEL = "cancel"


class Overflow(StrEnum):
    """What happens when a reader lags. BLOCK: the call's flow control stops the worker until it has caught up."""

    BLOCK = "block"


class Role(StrEnum):
    """What a reader is to the run. A SUBSCRIBER keeps it alive, and is waited for."""

    SUBSCRIBER = "subscriber"


class Cause(StrEnum):
    """Why a run was cancelled; said in the end event's problem."""

    DISCONNECT = "the last reader left"
    CLIENT = "it was cancelled by a client"
    SHUTDOWN = "the gateway is shutting down"


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """The policy of one run.

    `lag_bytes`: how far its slowest reader may be behind before `overflow` applies. `idle_timeout_s`: the longest
    silence between chunks once a worker has it, the first one included; None for no limit but the run's own.
    """

    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    overflow: Overflow = Overflow.BLOCK
    lag_bytes: int = 256 * 1024
    idle_timeout_s: float | None = None


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
        detail = f"is {text[:40]!r}; allowed: {', '.join(choices)}"
        raise GatewayError("invalid-option", f"{name} {detail}", errors=[FieldError(name, detail)]) from None
