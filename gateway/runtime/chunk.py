"""A chunk from the tool's `yield` to the buffer: the marks a tool may give it, and the one final mark.

Any value can be yielded as it is; a StreamChunk adds the final mark and metadata. Used by execution.py on the
tool's own thread or task; wire.py numbers and frames what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.runtime import payload


@dataclass(slots=True)
class StreamChunk:
    """One chunk with its marks.

    `is_final` says that this is the last one; `metadata` is sent beside the value, its keys and values as text.
    """

    data: Any
    is_final: bool = False
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """An encoded chunk that carries more than its payload; its length is the payload's."""

    data: bytes
    metadata: Mapping[str, str] | None = None
    is_final: bool = False

    def __len__(self) -> int:
        return len(self.data)


# Nearly all chunks carry nothing but their JSON text, so they are that and no object.
Encoded = bytes | Marked

_PLAIN = frozenset({dict, list, str, int, float, bool, type(None), bytes, tuple})


class FinalMark:
    """Encodes what one generator yields, so that exactly one chunk is final: the last.

    An item with the attributes `data` and `is_final` (and perhaps `metadata`) is unwrapped, whatever its class, as
    Snakepit does; a dict with such keys is a value. Ordinary chunks pass at once. From the first chunk that the
    tool marked final on, one chunk is held back: if another follows, the held one goes out unmarked, and what is
    held when the generator ends is the final chunk. A stream of no marked chunk gets an empty final one.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: Encoded | None = None

    def pass_on(self, item: Any) -> Encoded | None:
        """Return the chunk to send for a yielded item; None where it is held back.

        Raises:
            Unserialisable: the value has no JSON form.
            TooLarge: it does not fit into one message.
        """
        if type(item) in _PLAIN and self._held is None:
            return payload.encode(item)
        marked = False
        chunk: Encoded
        if hasattr(item, "data") and hasattr(item, "is_final"):
            chunk, marked = payload.encode(item.data), bool(item.is_final)
            if metadata := _as_text(getattr(item, "metadata", None)):
                chunk = Marked(chunk, metadata)
        else:
            chunk = payload.encode(item)
        if self._held is None and not marked:
            return chunk
        held, self._held = self._held, chunk
        return held

    def final(self) -> Marked:
        """Return the final chunk; called once, when the generator has ended well."""
        match self._held:
            case None:
                return Marked(b"", is_final=True)
            case Marked(data, metadata):
                return Marked(data, metadata, is_final=True)
            case bytes() as data:
                return Marked(data, is_final=True)

    def release(self) -> Encoded | None:
        """Return the held chunk, unmarked: the generator failed after it, so there is no final one."""
        return self._held


def _as_text(metadata: Any) -> dict[str, str]:
    """Return metadata as protobuf's map<string, string> takes it; anything but a mapping is ignored, as Snakepit does."""
    return {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, Mapping) else {}
