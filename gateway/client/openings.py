"""What begins a reading: a tool's stream of its own, or a run that is there already; the same for both shells.

A stream of its own is opened with `_on_disconnect=grace:10s` where its caller says nothing, not with the server's `cancel`. A browser
that is gone and one that was cut look the same to a server, so there leaving must cancel. A program can say which it is: it cancels
the run by name when it leaves (break, exception, close), and a cut is then only a cut, which it has ten seconds to mend. A program
that dies without a word costs the worker those ten seconds.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.client import requests
from gateway.client.reading import OnGap, Pulse, Reading
from gateway.client.resume import Resume

GRACE = "grace:10s"


@dataclass(frozen=True, slots=True)
class Habits:
    """How a client reads: what it knows of the gateway's heartbeat, and how it comes back after a cut."""

    pulse: Pulse
    resume: Resume


def stream(
    habits: Habits, tool: str, arguments: Mapping[str, Any] | None, on_gap: OnGap, key: str | None, options: Mapping[str, Any]
) -> Reading:
    """Return the reading of a run that it starts.

    The run is the reader's own, unless its caller has said what leaving means, or has given a key, by which others may have joined.

    Raises:
        TypeError: an option is unknown, an argument has no form in JSON.
    """
    policy = options.get("on_disconnect")
    opening = requests.stream(tool, arguments, key or uuid.uuid4().hex, {**options, "on_disconnect": policy or GRACE})
    kept = {"overflow": options.get("overflow")}
    owned = policy is None and key is None
    return Reading(opening, pulse=habits.pulse, resume=habits.resume, on_gap=_checked(on_gap), reader_options=kept, owned=owned)


def attach(habits: Habits, run: str, from_: str | int, on_gap: OnGap, options: Mapping[str, Any]) -> Reading:
    """Return the reading of a run that is there. `run` may be an event id, `<run>.<number>`, which says where to go on as well.

    Raises:
        TypeError: an option is unknown.
        ValueError: `from_` is no place.
    """
    run_id, dot, number = run.partition(".")
    if dot and number != "end":
        from_ = number
    after: int | None = None
    begins: str | None = None
    if from_ in ("start", "live"):
        begins = str(from_)
    elif str(from_).isascii() and str(from_).isdigit():
        after = int(from_)
    else:
        raise ValueError(f"from_ is {from_!r}; allowed: start, live, or the number of the last chunk that you have")
    opening = requests.events(run_id, options, after=after, begins=begins)
    position = None if begins == "live" else after or 0
    return Reading(
        opening,
        pulse=habits.pulse,
        resume=habits.resume,
        on_gap=_checked(on_gap),
        reader_options=options,
        run_id=run_id,
        position=position,
    )


def seconds(timeout_ms: float | None) -> float | None:
    """Return Snakepit's `:timeout`, milliseconds, in seconds."""
    return None if timeout_ms is None else timeout_ms / 1000


def _checked(on_gap: OnGap) -> OnGap:
    if on_gap not in ("raise", "yield"):
        raise ValueError(f"on_gap is {on_gap!r}; allowed: raise, yield")
    return on_gap
