"""Server-Sent Events from bytes, without I/O: WHATWG HTML §9.2.6, for any server and any splitting by any proxy.

Read by reading.py. It works on bytes and on batches, since an event at a time, a line at a time or a character at a time is what
makes decoders slow: what our gateway sends when much arrives together, chunks and nothing else, is taken apart by a few calls on
`bytes`. Whatever looks any different goes through the standard's own algorithm, line by line.
"""

from __future__ import annotations

from typing import NamedTuple

# The longest event that is waited for: a chunk is at most 100 MiB.
EVENT_LIMIT_BYTES = 128 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event. `name` is `message` where the stream says none, `id` the one it was sent with, None where it has none of its own."""

    name: str
    data: bytes
    id: str | None = None


class Batch(NamedTuple):
    """Chunks that arrived together: events without a name, of one run, whose numbers follow each other.

    `ids` is what stands before the number in an id, `<run>.`; `payloads[i]` is the data of number `first + i`.
    """

    ids: str
    first: int
    payloads: list[bytes]


class EventTooLarge(ValueError):
    """An event is larger than any that a gateway sends."""


class EventStreamDecoder:
    """Takes a response's bytes as they come, and returns what is complete. `retry_ms`: the last `retry:` that was seen."""

    def __init__(self) -> None:
        self.retry_ms: int | None = None
        # What is incomplete, in the parts that it came in: an event of many megabytes is put together once.
        self._parts: list[bytes] = []
        self._size = 0
        self._is_new = True
        # What came last was a CR, so that an LF is the rest of that line's end.
        self._after_cr = False

    def feed(self, data: bytes) -> list[Event | Batch]:
        """Return the events that these bytes complete, in order.

        Raises:
            EventTooLarge: what is incomplete is over the limit.
        """
        if b"\r" in data or self._after_cr:
            data = self._unify_line_ends(data)
        if not data:
            return []
        end = data.rfind(b"\n\n")
        if end < 0 and not (data.startswith(b"\n") and self._parts and self._parts[-1].endswith(b"\n")):
            self._keep(data)
            return []
        # The block's end is a line's end of before and the first byte here, where it isn't whole in here.
        end = max(end + 2, 1)
        text = b"".join([*self._parts, data[:end]]) if self._parts else data[:end]
        self._parts.clear()
        self._size = 0
        if len(data) > end:
            self._keep(data[end:])
        if self._is_new:
            text, self._is_new = text.removeprefix(_BOM), False
        batch = _batch(text)
        return [batch] if batch is not None else self._events(text)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > EVENT_LIMIT_BYTES:
            raise EventTooLarge(f"an event is larger than {EVENT_LIMIT_BYTES} bytes")
        self._parts.append(part)

    def _unify_line_ends(self, data: bytes) -> bytes:
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _events(self, text: bytes) -> list[Event | Batch]:
        """Return the events of a text of whole blocks, read line by line."""
        found: list[Event | Batch] = []
        for block in text.split(b"\n\n"):
            name, event_id, data = "message", None, []
            for line in block.split(b"\n"):
                field, _, value = line.partition(b":")
                value = value.removeprefix(b" ")
                if field == b"data":
                    data.append(value)
                elif field == b"id" and b"\0" not in value:
                    event_id = value.decode("utf-8", "replace")
                elif field == b"event":
                    name = value.decode("utf-8", "replace") or "message"
                elif field == b"retry" and value.isdigit() and len(value) < 10:
                    self.retry_ms = int(value)
            if data:
                found.append(Event(name, b"\n".join(data), event_id))
        return found


def _batch(text: bytes) -> Batch | None:
    """Return a text of whole blocks as a batch; None where it holds anything but chunks, each of one `id` and one `data` line.

    The counts make sure of the number of lines. A block without a `data` line of its own would shift data to where an id has to be,
    and JSON doesn't begin as an id does.
    """
    count = text.count(b"\n\n")
    if not text.startswith(b"id: ") or text.count(b"\n") != 3 * count or text.count(b"\n\nid: ") != count - 1:
        return None
    parts = text[4:-2].replace(b"\n\nid: ", b"\ndata: ").split(b"\ndata: ")
    if len(parts) != 2 * count:
        return None
    ids = parts[::2]
    run, dot, first = ids[0].rpartition(b".")
    last = ids[-1].rpartition(b".")[2]
    if not (dot and _is_number(first) and _is_number(last)) or int(last) - int(first) != count - 1:
        return None
    prefix = run + dot
    if (b"\n" + b"\n".join(ids)).count(b"\n" + prefix) != count:
        return None
    return Batch(prefix.decode("utf-8", "replace"), int(first), parts[1::2])


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) < 16
