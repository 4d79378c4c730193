"""A stream as lines, for a pipe or a file: `Lines`, `JsonLines` and `Raw`; live.py is for people.

Each takes the events of a stream in order. What a tool yielded goes to stdout as the gateway sent it, digit by digit, and at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.client import Chunk, End, Gap, Start, Status


class View(Protocol):
    """Shows a stream."""

    def show(self, event: Any) -> None:
        """Take the next event."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was; idempotent."""
        ...


class Lines:
    """The chunks, a JSON value a line."""

    def show(self, event: Any) -> None:
        """Take the next event."""
        if isinstance(event, Chunk):
            _write(_one_line(event.text) + b"\n")

    def close(self) -> None:
        """Nothing is left to do."""


class JsonLines(Lines):
    """Every event, as the gateway says it as application/x-ndjson."""

    def show(self, event: Any) -> None:
        """Take the next event."""
        if isinstance(event, Chunk):
            _write(b'{"seq":%d,"data":%b}\n' % (event.number, _one_line(event.text)))
        elif isinstance(event, Gap):
            _document("gap", {"from": event.first, "to": event.last, "reason": event.reason})
        elif isinstance(event, Start):
            _document("start", event.document)
        elif isinstance(event, Status):
            _document("status", event.document)
        elif isinstance(event, End):
            _document("end", event.document)


class Raw(Lines):
    """Text and bytes as they are with nothing between them, as a language model's words; any other chunk as a line of JSON."""

    def show(self, event: Any) -> None:
        """Take the next event."""
        if isinstance(event, Chunk) and isinstance(event.value, str):
            _write(event.value.encode("utf-8", "replace"))
        elif isinstance(event, Chunk) and isinstance(event.value, bytes):
            _write(event.value)
        else:
            super().show(event)


def _one_line(text: bytes) -> bytes:
    """Return JSON without line breaks; where it has some they are white space."""
    return text.replace(b"\n", b" ")


def _document(name: str, document: Mapping[str, Any]) -> None:
    _write(json.dumps({name: document}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
