"""Run ids: unguessable, since whoever knows one may read the run, and sortable by the time they were made.

`r_` and a ULID: 48 bits of Unix milliseconds and 80 random bits in Crockford's base 32 (github.com/ulid/spec).
"""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# A random byte's letter: 256 is a multiple of 32, so each is as likely.
_LETTERS = bytes(ord(_ALPHABET[byte % 32]) for byte in range(256))
_RUN_ID = re.compile(r"r_[0-9A-HJKMNP-TV-Z]{26}")
_EVENT_ID = re.compile(r"(r_[0-9A-HJKMNP-TV-Z]{26})\.(end|[0-9]{1,15})")


class _Ids:
    """Makes ids: the time's half once a millisecond, the random half for a hundred at once, since that is a system call."""

    def __init__(self) -> None:
        self._made_ms = 0
        self._time = ""
        self._random = ""

    def take(self) -> str:
        """Return an id that was never returned before."""
        now_ms = time.time_ns() // 1_000_000
        if now_ms != self._made_ms:
            self._made_ms = now_ms
            self._time = "r_" + "".join([_ALPHABET[now_ms >> shift & 31] for shift in range(45, -1, -5)])
        if not self._random:
            self._random = secrets.token_bytes(1600).translate(_LETTERS).decode("ascii")
        random, self._random = self._random[:16], self._random[16:]
        return self._time + random


_ids = _Ids()


def new_run_id() -> str:
    """Return a fresh id of 28 characters."""
    return _ids.take()


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
