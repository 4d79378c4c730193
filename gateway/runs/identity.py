"""Run ids: unguessable, since whoever knows one may read the run, and sortable by the time they were made.

`r_` and a ULID: 48 bits of Unix milliseconds and 80 random bits in Crockford's base 32 (github.com/ulid/spec).
"""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_SHIFTS = range(120, -1, -10)
_RUN_ID = re.compile(r"r_[0-9A-HJKMNP-TV-Z]{26}")
_EVENT_ID = re.compile(r"(r_[0-9A-HJKMNP-TV-Z]{26})\.(end|[0-9]{1,15})")


class _Randomness:
    """Random numbers of 80 bits, fetched from the system for a hundred runs at once: each fetch is a system call."""

    def __init__(self) -> None:
        self._pool: list[int] = []

    def take(self) -> int:
        """Return a number that was never returned before."""
        if not self._pool:
            data = secrets.token_bytes(1000)
            self._pool = [int.from_bytes(data[at : at + 10]) for at in range(0, 1000, 10)]
        return self._pool.pop()


_randomness = _Randomness()


def new_run_id() -> str:
    """Return a fresh id of 28 characters."""
    number = (time.time_ns() // 1_000_000) << 80 | _randomness.take()
    return "r_" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def is_run_id(text: str) -> bool:
    """Return whether a text has the form of a run's id."""
    return _RUN_ID.fullmatch(text) is not None


def created_ms(run_id: str) -> int:
    """Return when a run was accepted, by its id: Unix milliseconds."""
    number = 0
    for letter in run_id[2:12]:
        number = number << 5 | _ALPHABET.index(letter)
    return number


def parse_event_id(text: str) -> tuple[str, int | None] | None:
    """Return the run and the chunk number of an event id (`None` for the end event), or None for any other text."""
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        return None
    return match[1], None if match[2] == "end" else int(match[2])
