"""The base of values that are made for every run or batch: a few named parts, equal when they are, not to be changed.

Subclasses name their parts in `__slots__`, in order, and set them in `__init__`. Why neither a named tuple nor a frozen dataclass:
compiled, those still are classes of Python's, whose parts are looked up by name and which interpreted code makes; this is a struct.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class Value:
    """See the module."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and type(self) is type(other) and self.parts() == other.parts()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={part!r}' for name, part in self.parts().items())})"

    def parts(self) -> dict[str, Any]:
        """Return the parts by their names, in order."""
        kind: Any = type(self)
        # A compiled class has no __slots__, but says the same by another name.
        names: Sequence[str] = getattr(kind, "__mypyc_attrs__", None) or kind.__slots__
        return {name: getattr(self, name) for name in names}

    def but(self, **changes: Any) -> Self:
        """Return another one, with these parts in place of its own."""
        return type(self)(**{**self.parts(), **changes})
