"""A tool's stream: `GET|POST /v1/tools/{tool}/stream`, as SSE, JSON lines or one JSON object by Accept.

A reconnect (Last-Event-ID) re-attaches to the run it names and never starts the tool again: docs of the
protocol, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.codec import ndjson, sse
from gateway.codec.ndjson import NdjsonEncoder
from gateway.codec.sse import SseEncoder
from gateway.endpoints import collected
from gateway.endpoints.collected import CollectedRun
from gateway.endpoints.contract import STREAM_GET, STREAM_POST
from gateway.endpoints.express import Endpoint
from gateway.endpoints.negotiation import choose
from gateway.endpoints.requests import CallReader
from gateway.endpoints.response import Encoder, RunStream, StreamTiming
from gateway.errors import FieldError, GatewayError
from gateway.events import Ended, Outcome
from gateway.runs.hub import Hub
from gateway.runs.identity import parse_event_id
from gateway.runs.run import Run

STREAM_TYPES = (sse.MEDIA_TYPE, *ndjson.MEDIA_TYPES)
OFFERED = (*STREAM_TYPES, collected.MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How runs are streamed. `result_limit_bytes` bounds the answers that are held until the end."""

    timing: StreamTiming = field(default_factory=StreamTiming)
    retry_ms: int = 2000
    result_limit_bytes: int = 64 * 1024 * 1024
    debug: bool = False


class RunResponses:
    """Makes the response for a reader of a run, in the format that the request accepts."""

    def __init__(self, hub: Hub, settings: StreamSettings) -> None:
        self._hub = hub
        self._settings = settings

    def response(self, run: Run, media_type: str, *, after: int | None = None) -> Response:
        """Return a new reader's response. `after` is the last chunk it has; None for a first connection."""
        settings = self._settings
        if media_type == collected.MEDIA_TYPE:
            return CollectedRun(run, settings.timing, limit_bytes=settings.result_limit_bytes, after=after, debug=settings.debug)
        return RunStream(run, self.encoder(run.id, media_type), settings.timing, after=after, debug=settings.debug)

    def resumed(self, last_event_id: str, media_type: str, *, of: str | None = None) -> Response:
        """Return the response to a reconnect: the rest of the run, 204 when there is none, `expired` when nobody knows it.

        `of` is the run that the URL names; None for a tool's URL, where the event id alone says which.
        """
        place = parse_event_id(last_event_id)
        if place is None or of not in (None, place[0]):
            allowed = "an event id of this gateway, <run>.<number>" if of is None else f"an event id of this run, {of}.<number>"
            detail = f"is {last_event_id[:60]!r}; allowed: {allowed}"
            raise GatewayError("invalid-option", f"Last-Event-ID {detail}", errors=[FieldError("Last-Event-ID", detail)])
        run_id, after = place
        if after is None:
            # Everything was delivered: the one answer after which EventSource stops (WHATWG HTML §9.2.3).
            return Response(status_code=204)
        run = self._hub.find(run_id)
        if run is None:
            return self.expired(run_id, media_type)
        return self.response(run, media_type, after=after)

    def expired(self, run_id: str, media_type: str) -> Response:
        """Return an `end` event with status `expired`; a 4xx would hide the reason from EventSource."""
        error = GatewayError("run-expired", f"Run {run_id} is over and forgotten; it was not started again")
        end = Ended(Outcome.EXPIRED, 0, error=error)
        collects = media_type == collected.MEDIA_TYPE
        body = collected.whole([], [], end, f"/v1/runs/{run_id}") if collects else self.encoder(run_id, media_type).encode(end)
        return Response(body, headers={"Cache-Control": "no-store", "Vary": "Accept"}, media_type=f"{media_type}; charset=utf-8")

    def encoder(self, run_id: str, media_type: str) -> Encoder:
        """Return what encodes a run's events for a media type; JSON lines for the one that collects."""
        if media_type == sse.MEDIA_TYPE:
            return SseEncoder(run_id, retry_ms=self._settings.retry_ms, debug=self._settings.debug)
        lines = media_type if media_type in ndjson.MEDIA_TYPES else ndjson.MEDIA_TYPES[0]
        return NdjsonEncoder(run_id, media_type=lines, debug=self._settings.debug)


METHODS = frozenset({"GET", "HEAD", "POST"})


def endpoint(reader: CallReader, responses: RunResponses) -> Endpoint:
    """Return what answers a request for a tool's stream."""

    def stream(request: Request, tool: str, body: bytes) -> Response:
        media_type = choose(request.headers.get("accept"), OFFERED)
        last_event_id = request.headers.get("last-event-id")
        if last_event_id:
            return responses.resumed(last_event_id, media_type)
        call, policy = reader.read(request, tool, body, streaming=True)
        if request.method == "HEAD":
            # Says what a GET would be, and runs nothing.
            reader.hub.check(call)
            return Response(media_type=media_type, headers={"Cache-Control": "no-cache, no-transform", "Vary": "Accept"})
        return responses.response(reader.hub.open(call, policy), media_type)

    return Endpoint(stream, METHODS, reader.limits.body_bytes)


def router(stream: Endpoint) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["streams"])
    routes.add_api_route("/v1/tools/{tool}/stream", stream, methods=["GET"], **STREAM_GET)
    routes.add_api_route("/v1/tools/{tool}/stream", stream, methods=["HEAD"], include_in_schema=False)
    routes.add_api_route("/v1/tools/{tool}/stream", stream, methods=["POST"], **STREAM_POST)
    return routes
