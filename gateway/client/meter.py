"""How far a tool has come, by what its chunks say: `step` of `total`, `epoch` of `epochs`, or `progress`.

Used by progress.py and by the command line's live view. A guess by names, so it only ever decorates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

# (what has been done, of how much): in a chunk; the second may also be an argument of the call.
_PAIRS = (("step", "total"), ("step", "steps"), ("epoch", "epochs"), ("done", "total"), ("completed", "total"), ("current", "total"))
# Alone they say a fraction from 0 to 1 or a percentage.
_FRACTIONS = ("progress", "percent")


class Progress(NamedTuple):
    """So much is done, of so much."""

    done: float
    total: float


class Meter:
    """Reads the progress out of a run's chunks. `arguments` are the call's; `total` is the whole, where its caller knows it."""

    def __init__(self, arguments: Mapping[str, Any] | None = None, total: float | None = None) -> None:
        self._arguments = arguments or {}
        self._total = total
        # Once over 1, `progress` is a percentage; before that nobody can tell 1 from 1 %.
        self._is_percentage = False

    def read(self, chunk: Any) -> Progress | None:
        """Return how far it has come; None where the chunk doesn't say."""
        if not isinstance(chunk, Mapping):
            return None
        for done_name, total_name in _PAIRS:
            total = self._total if self._total is not None else chunk.get(total_name, self._arguments.get(total_name))
            done = chunk.get(done_name)
            if is_number(done) and is_number(total) and total > 0:
                return Progress(min(done, total), total)
        for name in _FRACTIONS:
            done = chunk.get(name)
            if is_number(done):
                self._is_percentage = self._is_percentage or done > 1 or name == "percent"
                total = 100.0 if self._is_percentage else 1.0
                return Progress(min(max(done, 0.0), total), total)
        return None


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a JSON value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
