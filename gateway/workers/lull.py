"""Ends a call at a moment when its worker has nothing of it waiting: for workers that leak a thread otherwise.

A Snakepit worker hands a stream's chunks from the tool's thread to its event loop through a queue. A call that is reset while that queue is
full leaves the thread in it for ever. The queue is full where the reader was the slower one, or the tool never pauses: so before the
reset the stream is read on, at full speed and for nothing, until little has come for a moment. A tool that never pauses is reset all
the same, and may have cost the worker a thread: `was_forced` says so, and dialects say how many a worker can lose.
Used by toolstream.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway import timers
from gateway.transport.base import StreamCall

LOOK_S = 0.02
# At most half a second.
LOOKS_LIMIT = 25
# Less than both within a look, and the tool is slower than its worker can send: nothing is left waiting.
FEW_MESSAGES = 20
FEW_BYTES = 1_000_000


class Lull:
    """Resets `call` when little has come for LOOK_S, at the latest after LOOKS_LIMIT times that."""

    __slots__ = ("_bytes", "_call", "_looks", "_messages", "_timer", "was_forced")

    def __init__(self, call: StreamCall) -> None:
        # Whether it was reset while it was still sending as fast as it could.
        self.was_forced = False
        self._call = call
        self._looks = 0
        self._messages = 0
        self._bytes = 0
        self._timer = timers.running().call_later(LOOK_S, self._look)

    def drop(self, messages: Sequence[bytes]) -> None:
        """Take note of what has come, and of nothing else of it."""
        self._messages += len(messages)
        self._bytes += sum(map(len, messages))

    def close(self) -> None:
        """Forget it: the call has ended. Idempotent."""
        self._timer.cancel()

    def _look(self) -> None:
        self._looks += 1
        is_quiet = self._messages < FEW_MESSAGES and self._bytes < FEW_BYTES
        if is_quiet or self._looks >= LOOKS_LIMIT:
            self.was_forced = not is_quiet
            self._call.cancel()
        else:
            self._messages = self._bytes = 0
            self._timer = timers.running().call_later(LOOK_S, self._look)
