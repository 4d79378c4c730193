"""One HTTP/1.1 connection that reads streams and only counts their events.

The response is parsed by httptools (C); a body costs one `bytes.count`. Used by the cases, whose targets say how
an event ends and how the timestamp in it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools

from benchmarks import stamp
from benchmarks.load.counting import MarkCounter
from benchmarks.load.reader import StreamFailed, StreamReader

TAIL_BYTES = 4096


class EventReader(StreamReader):
    """Sends a request when connected, counts the marks that end the answer's events.

    `again` is asked for the next request on the same connection when an answer has ended; None ends the reader.
    """

    def __init__(
        self, request: bytes, mark: bytes, *, stamps: stamp.Reader | None = None, again: Callable[[], bytes | None] = lambda: None
    ) -> None:
        super().__init__(stamps)
        self._request = request
        self._counter = MarkCounter(mark)
        self._again = again
        self._parser = httptools.HttpResponseParser(self)

    @property
    def events(self) -> int:
        return self._counter.count

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self.end(StreamFailed(f"not HTTP: {exc}"))

    # httptools

    def on_body(self, body: bytes) -> None:
        self._counter.feed(body)
        self.note_latencies(body)
        self.tail = body[-TAIL_BYTES:] if len(body) > TAIL_BYTES else (self.tail + body)[-TAIL_BYTES:]
        self.note_first()

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self.end(StreamFailed(f"status {status}: {self.tail[-500:]!r}"))
            return
        request = self._again()
        if request is None:
            self.end(None)
        else:
            self.transport.write(request)
