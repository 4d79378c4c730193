"""Events as JSON lines: one object a line, LF, nothing else (https://ndjson.org, https://jsonlines.org).

Used by endpoints/. A chunk is `{"seq":n,"data":…}`, the others `{"start":…}`, `{"status":…}`, `{"gap":…}` and,
last, `{"end":…}`; an empty line is the heartbeat.
"""

from __future__ import annotations

from typing import final

from gateway.codec import documents
from gateway.codec.encoder import Encoder
from gateway.events import Chunks, Event, Gap, Started, Status

MEDIA_TYPES = ("application/x-ndjson", "application/jsonl")
HEARTBEAT = b"\n"


@final
class NdjsonEncoder(Encoder):
    """Encodes the events of one run as lines, for all its readers: the newest batch is encoded once and kept."""

    def __init__(self, run: str, *, media_type: str = MEDIA_TYPES[0], debug: bool = False) -> None:
        super().__init__("ndjson", media_type, HEARTBEAT)
        self._instance = f"/v1/runs/{run}"
        self._debug = debug
        self._last: Chunks | None = None
        self._text = b""

    def encode(self, event: Event) -> bytes:
        if isinstance(event, Chunks):
            return self.encode_chunks(event)
        if isinstance(event, Started):
            return _line("start", documents.started(event))
        if isinstance(event, Status):
            return _line("status", documents.status(event))
        if isinstance(event, Gap):
            return _line("gap", documents.gap(event))
        return _line("end", documents.ended(event, self._instance, debug=self._debug))

    def farewell(self) -> bytes:
        # There is no word for it.
        return b""

    def encode_chunks(self, chunks: Chunks) -> bytes:
        """Return a batch of chunks, a line each. A line break inside a payload is JSON white space: it becomes a space."""
        if chunks is self._last:
            return self._text
        self._last, self._text = chunks, self._chunk_lines(chunks)
        return self._text

    @staticmethod
    def _chunk_lines(chunks: Chunks) -> bytes:
        lines = [b'{"seq":%d,"data":%b}\n' % (n, payload) for n, payload in enumerate(chunks.payloads, chunks.first)]
        text = b"".join(lines)
        if text.count(b"\n") != len(lines) or b"\r" in text:
            text = b"".join([line[:-1].replace(b"\r", b" ").replace(b"\n", b" ") + b"\n" for line in lines])
        return documents.escape_separators(text)


def _line(name: str, document: dict[str, object]) -> bytes:
    return documents.dump({name: document}) + b"\n"
