"""Events as Server-Sent Events: WHATWG HTML §9.2, fields in the order id, event, data; LF only.

Used by endpoints/. A batch of chunks becomes one `bytes`. No payload can break the framing: line breaks
inside one become several `data:` lines, which the receiver joins again with LF.
"""

from __future__ import annotations

import random
import re
from typing import final

from gateway.codec import documents
from gateway.codec.encoder import Encoder
from gateway.events import Chunks, Event, Gap, Outcome, Started, Status

MEDIA_TYPE = "text/event-stream"
# One line and no blank one: a comment followed by a blank line makes several clients emit an empty event.
HEARTBEAT = b": hb\n"

_LINE_BREAK = re.compile(rb"\r\n|\r|\n")


@final
class SseEncoder(Encoder):
    """Encodes the events of one run, for all its SSE readers: the newest batch is encoded once and kept.

    `retry_ms` is sent ahead of `start`: how long an EventSource waits before it reconnects. Where many have to at the same
    moment, each is told a time of its own, from half to one and a half of that: with an end by shutdown, and by `farewell`.
    """

    def __init__(self, run: str, *, retry_ms: int, debug: bool = False) -> None:
        super().__init__("sse", MEDIA_TYPE, HEARTBEAT)
        self._run = run
        self._prefix = b"id: %b." % run.encode()
        self._retry_ms = retry_ms
        self._debug = debug
        self._last: Chunks | None = None
        self._text = b""

    def encode(self, event: Event) -> bytes:
        if isinstance(event, Chunks):
            if event is not self._last:
                self._last, self._text = event, self.encode_chunks(event)
            return self._text
        if isinstance(event, Started):
            head = b"retry: %d\n" % self._retry_ms
            if event.resumed_from is None:
                head += self._prefix + b"0\n"
            return head + _event(b"start", documents.dump(documents.started(event)))
        if isinstance(event, Status):
            return _event(b"status", documents.dump(documents.status(event)))
        if isinstance(event, Gap):
            return _event(b"gap", documents.dump(documents.gap(event)))
        retry = self._jittered_retry() if event.outcome is Outcome.SHUTDOWN else b""
        # Who comes back with a credential that is good goes on where it was: with the end's id it would be told 204.
        place = b"" if event.outcome is Outcome.AUTH_EXPIRED else self._prefix + b"end\n"
        document = documents.ended(event, f"/v1/runs/{self._run}", debug=self._debug)
        return retry + place + _event(b"end", documents.dump(document))

    def farewell(self) -> bytes:
        # No blank line: `retry` counts as soon as its line is read, and some clients make an empty event of a block without data.
        return self._jittered_retry()

    def _jittered_retry(self) -> bytes:
        return b"retry: %d\n" % random.randint(self._retry_ms // 2, self._retry_ms * 3 // 2)

    def encode_chunks(self, chunks: Chunks) -> bytes:
        """Return a batch of chunks: one `id` and one `data` line each, in order."""
        prefix, first, payloads = self._prefix, chunks.first, chunks.payloads
        if len(payloads) == 1:
            text = b"".join((prefix, b"%d\ndata: " % first, payloads[0], b"\n\n"))
        else:
            text = b"".join([b"%b%d\ndata: %b\n\n" % (prefix, n, payload) for n, payload in enumerate(payloads, first)])
        if text.count(b"\n") != 3 * len(payloads) or b"\r" in text:
            text = b"".join([b"%b%d\n%b\n\n" % (prefix, n, _data_lines(payload)) for n, payload in enumerate(payloads, first)])
        return documents.escape_separators(text)


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)


def _data_lines(payload: bytes) -> bytes:
    return b"\n".join([b"data: " + line for line in _LINE_BREAK.split(payload)])
