"""One run on a socket without a subprotocol, for people with no client library: the SSE events as objects.

Made by websocket.py once the run is there. What the client says has no meaning; closing is a disconnect. The socket is
closed 1000 after the `end`. Source: docs of the protocol, section 6.
"""

from __future__ import annotations

from fastapi import WebSocket

from gateway.caller import caller_of
from gateway.codec.websocket import EventEncoder, cut_error
from gateway.endpoints.duplex import AUTH_EXPIRED, Closing, Duplex, SocketSettings
from gateway.endpoints.outlet import SocketRun
from gateway.errors import CODES
from gateway.runs.policy import ReaderOptions
from gateway.runs.source import RunSource

DONE = Closing(1000)


class PlainSocket(Duplex):
    """A reader of one run. Its drain is the run's: nothing tells its client to go away but the run's end."""

    def __init__(self, websocket: WebSocket, run: RunSource, options: ReaderOptions, settings: SocketSettings) -> None:
        super().__init__(websocket, settings)
        self._entry = self._outlet.attach(run, caller_of(websocket.scope), EventEncoder(run.id, debug=settings.debug), options)

    def go_away(self, reconnect_in_ms: int) -> None:
        pass

    async def _listen(self) -> None:
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass

    def _finished(self, entry: SocketRun) -> None:
        # A reader that was cut gets no `end`: it may come back with its last event id.
        error = cut_error()
        if entry.reader.expired:
            self._closing = AUTH_EXPIRED
        else:
            self._closing = Closing(CODES[error.code].ws_close, error.detail) if entry.reader.cut else DONE
        self._outlet.drop(entry)
        self._outlet.finish()

    def _release(self) -> None:
        self._entry.reader.close()
