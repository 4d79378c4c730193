"""A streamed run among Starlette's responses. The only importer of sse_starlette.

`EventSource` is sse-starlette's EventSourceResponse with another engine: response.py's state machine over an Exchange. Our own
server takes the machine out of it (direct.py); under another one, or behind a middleware, `__call__` runs it over ASGI
(exchange.py), with the request's task. What deviates from the base, and why:

- No task. The base runs a task each for sending, pings, the exit signal and the disconnect; here what a run has is
  written from where it was woken, our server tells of the loss, and the drain ends the run itself.
- No cancel scope for each send, which was a quarter of an event's cost.
- The heartbeat is `: hb` and one LF; the base's ping ends in a blank line, which makes clients emit a ghost event.

Kept: its place among Starlette's responses. HEAD is the endpoint's, which must not start a run.
"""

from __future__ import annotations

from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from gateway.endpoints.exchange import AsgiExchange
from gateway.endpoints.response import RunStream

# The drain is the app's: on import sse-starlette has put itself in front of uvicorn's signal handler.
AppStatus.enable_automatic_graceful_drain = False


class EventSource(EventSourceResponse):
    """One reader of a run as a response of Starlette's; `stream` is what answers."""

    # What Starlette and FastAPI look at.
    status_code = 200
    background = None

    # Not the base's __init__: it wraps an iterator, makes a lock and headers that are of no use here, 40 µs in all.
    def __init__(self, stream: RunStream) -> None:
        self.stream = stream
        self.raw_headers = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer under ASGI."""
        await AsgiExchange(scope, receive, send).carry(self.stream)
