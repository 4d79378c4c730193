"""Joining a run over WebSocket: the payload of an `attach` frame, and the Last-Event-ID of a plain socket.

Read by websocket.py into a value that names the run and how to read it; every mistake is an `invalid-option` that names
what is allowed. Event ids are those of SSE. Source: docs of the protocol, sections 3 and 6.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.caller import Caller
from gateway.codec.websocket import CREDIT_LIMIT, is_credit, shown
from gateway.errors import FieldError, GatewayError
from gateway.runs.hub import Hub
from gateway.runs.identity import parse_event_id
from gateway.runs.policy import Choice, Overflow, ReaderOptions, Role, parse_choice
from gateway.runs.source import RunSource

MEMBERS = ("run", "last_event_id", "from", "role", "overflow", "credit")
# As many digits as an event id may have.
_NUMBER_LIMIT = 10**15


@dataclass(frozen=True, slots=True)
class Attachment:
    """Which run to join, and how. `delivered`: the client has its end already, so there is nothing to read.

    `credit`: how many chunks it has room for; None for any number.
    """

    run_id: str
    options: ReaderOptions
    credit: int | None = None
    delivered: bool = False

    @property
    def resumes(self) -> bool:
        """Whether the client has read of this run before, so that the run once was."""
        return self.options.after is not None or self.delivered


def read_attach(payload: Mapping[str, Any], *, lag_bytes: int) -> Attachment:
    """Return what an `attach` payload asks for.

    `run` may be left out where `last_event_id` says it. `last_event_id` goes before `from`, as on a tool's URL, which
    an EventSource asks for again with the `_from` that it began with.

    Raises:
        GatewayError: `invalid-option`, naming the member and what is allowed.
    """
    check_members("attach", payload, MEMBERS)
    run_id, last_event_id = payload.get("run"), payload.get("last_event_id")
    if run_id is None and last_event_id is None:
        raise _invalid("run", "is required: the id of a run, or a `last_event_id`, which names its run")
    if run_id is not None and not (isinstance(run_id, str) and run_id):
        raise _invalid("run", "is the id of a run, a text")
    after, is_live = _place(payload.get("from"))
    is_delivered = False
    if last_event_id is not None:
        run_id, after = read_event_id("last_event_id", last_event_id, of=run_id)
        is_live, is_delivered = False, after is None
    options = ReaderOptions(
        role=_choice("role", payload, Role, Role.SUBSCRIBER),
        overflow=_choice("overflow", payload, Overflow, Overflow.BLOCK),
        lag_bytes=lag_bytes,
        after=after,
        live=is_live,
    )
    assert isinstance(run_id, str), "given, or read out of the event id"
    return Attachment(run_id, options, read_credit(payload), is_delivered)


def read_event_id(name: str, value: object, *, of: str | None = None) -> tuple[str, int | None]:
    """Return the run and the chunk number of an event id; None for the end's. `of` is the run that it has to be of.

    Raises:
        GatewayError: `invalid-option`, naming `name`.
    """
    place = parse_event_id(value) if isinstance(value, str) else None
    if place is None or of not in (None, place[0]):
        allowed = "an event id of this gateway, <run>.<number>" if of is None else f"an event id of this run, {of[:40]}.<number>"
        raise _invalid(name, f"is {shown(value, 60)}; allowed: {allowed}")
    return place


def read_credit(payload: Mapping[str, Any]) -> int | None:
    """Return the `credit` of a `subscribe` or `attach` payload; None where delivery is not limited.

    Raises:
        GatewayError: `invalid-option`.
    """
    credit = payload.get("credit")
    if credit is not None and not is_credit(credit):
        raise _invalid("credit", f"is {shown(credit)}; allowed: a whole number from 1 to {CREDIT_LIMIT}")
    return credit


async def find_run(hub: Hub, run_id: str, caller: Caller, *, resumes: bool) -> RunSource:
    """Return the caller's run to join, live or ended. `resumes`: its client has read of it before.

    Raises:
        GatewayError: `run-expired` where the run once was, else `run-not-found`; `log-unavailable`.
    """
    try:
        return await hub.look_up(run_id, caller)
    except GatewayError as error:
        if resumes and error.problem == "run-not-found":
            raise GatewayError("run-expired", f"Run {run_id[:40]} is over and forgotten; it was not started again") from error
        raise


def check_members(kind: str, payload: Mapping[str, Any], known: Collection[str], prefix: str | None = None) -> None:
    """Return if a frame's payload has known members only, or some that begin with `prefix`.

    Raises:
        GatewayError: `invalid-option`, naming the first unknown one, the nearest known one and all of them.
    """
    for name in payload:
        if name not in known and not (prefix is not None and name.startswith(prefix)):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            more = "" if prefix is None else f", {prefix}<key>"
            raise _invalid(name[:60], f"is no member of {kind}; {hint}known: {', '.join(known)}{more}")


def _place(value: object) -> tuple[int | None, bool]:
    """Return the last chunk that a reader doesn't want, None for a first connection, and whether it wants the live end only."""
    if value is None or value == "start":
        return None, False
    if value == "live":
        return None, True
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _NUMBER_LIMIT:
        return value, False
    raise _invalid("from", f"is {shown(value)}; allowed: start, live, or the number of the last chunk that you have")


def _choice(name: str, payload: Mapping[str, Any], choices: type[Choice], default: Choice) -> Choice:
    value = payload.get(name)
    if value is None:
        return default
    return parse_choice(name, value if isinstance(value, str) else shown(value), choices)


def _invalid(name: str, detail: str) -> GatewayError:
    return GatewayError("invalid-option", f"{name} {detail}", errors=[FieldError(name, detail)])
