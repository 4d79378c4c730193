"""The base of values that are made for every run or batch: a few named parts, equal when they are, not to be changed.

Subclasses name their parts in `__slots__`, in order, and set them in `__init__`. Why neither a named tuple nor a frozen dataclass:
compiled, those still are classes of Python's, whose parts are looked up by name and which interpreted code makes; this is a struct.
"""

from __future__ import annotations

from collections.abc import Sequence


class Value:
    """See the module."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in _parts(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in _parts(self))})"


def _parts(value: Value) -> Sequence[str]:
    parts: Sequence[str] = type(value).__slots__
    return parts
