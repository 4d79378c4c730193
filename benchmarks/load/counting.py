"""Counts how often a mark occurs in a stream of bytes that is cut anywhere."""

from __future__ import annotations


class MarkCounter:
    """Counts `mark`, also where it is cut in two by the border between two pieces. Marks must not overlap."""

    __slots__ = ("_keep", "_mark", "_tail", "count")

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        # What a mark's beginning could be, kept from the last piece.
        self._keep = len(mark) - 1
        self._tail = b""
        self.count = 0

    def feed(self, data: bytes) -> None:
        """Count the marks in the next piece."""
        keep, mark = self._keep, self._mark
        self.count += data.count(mark)
        if not keep:
            return
        # In the seam no whole mark fits on either side alone, so what is found there lies across it.
        self.count += (self._tail + data[:keep]).count(mark)
        self._tail = data[-keep:] if len(data) >= keep else (self._tail + data)[-keep:]
