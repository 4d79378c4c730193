"""A tool's stream: `GET|POST /v1/tools/{tool}/stream`, as SSE, JSON lines or one JSON object by Accept.

A reconnect (Last-Event-ID) re-attaches to the run it names and never starts the tool again: docs of the
protocol, section 3. `Prefer: respond-async` (RFC 7240) starts the run in the background instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.caller import Caller, caller_of
from gateway.codec import ndjson, ratelimit, sse
from gateway.codec.encoder import Encoder
from gateway.codec.ndjson import NdjsonEncoder
from gateway.codec.sse import SseEncoder
from gateway.endpoints import collected, prefer
from gateway.endpoints.awaited import AwaitedRun
from gateway.endpoints.collected import CollectedRun
from gateway.endpoints.contract import STREAM_GET, STREAM_POST
from gateway.endpoints.deferred import DeferredResponse
from gateway.endpoints.endpoint import Endpoint
from gateway.endpoints.eventsource import EventSource
from gateway.endpoints.head import RequestHead
from gateway.endpoints.negotiation import choose
from gateway.endpoints.prefer import Preferences
from gateway.endpoints.requests import CallReader, RunRequest
from gateway.endpoints.response import RunStream, StreamTiming
from gateway.endpoints.runstate import describe
from gateway.errors import GatewayError
from gateway.events import Ended, Outcome
from gateway.runs.hub import Hub
from gateway.runs.identity import parse_event_id
from gateway.runs.policy import CANCEL, CONTINUE, ReaderOptions, Role, invalid_option
from gateway.runs.source import RunSource

STREAM_TYPES = (sse.MEDIA_TYPE, *ndjson.MEDIA_TYPES)
OFFERED = (*STREAM_TYPES, collected.MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How runs are streamed. `result_limit_bytes` bounds the answers that are held until the end, `wait_limit_s` a client's wait for it."""

    timing: StreamTiming = field(default_factory=StreamTiming)
    retry_ms: int = 2000
    result_limit_bytes: int = 64 * 1024 * 1024
    wait_limit_s: int = 60
    debug: bool = False


class RunResponses:
    """Makes the response for a reader of a run, in the format that the request accepts, and for those who want its state or result."""

    def __init__(self, hub: Hub, settings: StreamSettings) -> None:
        self._hub = hub
        self._settings = settings

    @property
    def wait_limit_s(self) -> int:
        """The longest that a request may wait for a run's end."""
        return self._settings.wait_limit_s

    def response(self, run: RunSource, caller: Caller, media_type: str, options: ReaderOptions, *, bare: bool = False) -> Response:
        """Return the response of a new reader, who is this caller. `bare`: a single result is answered as it is."""
        settings = self._settings
        if media_type == collected.MEDIA_TYPE:
            return self._collected(run, caller, options, bare=bare)
        encoder = self._shared_encoder(run, media_type)
        return EventSource(RunStream(run, caller, encoder, settings.timing, options=options, debug=settings.debug))

    def resumed(self, caller: Caller, last_event_id: str, options: ReaderOptions, media_type: str, *, of: str | None = None) -> Response:
        """Return the response to a reconnect: the rest of the run, 204 when there is none, `expired` when nobody knows it.

        A run of another caller's is one that nobody knows.
        `of` is the run that the URL names; None for a tool's URL, where the event id alone says which.
        """
        place = self._place(last_event_id, of)
        if place is None:
            return Response(status_code=204)
        run_id, after = place
        options = replace(options, after=after)
        run = self._hub.find(run_id, caller)
        if run is not None:
            return self.response(run, caller, media_type, options)
        if self._hub.others is None:
            return self.expired(run_id, media_type)
        return self._deferred(
            lambda: self._hub.look_up(run_id, caller),
            lambda run: self.response(run, caller, media_type, options),
            unknown=lambda: self.expired(run_id, media_type),
        )

    def opened(self, asked: RunRequest, media_type: str, options: ReaderOptions, *, bare: bool = False) -> Response:
        """Start the run that is asked for and return its first reader's response; `bare` as for `response`.

        Raises:
            GatewayError: as Hub.open; where there are other gateways an error is the response's.
        """
        if self._hub.others is None:
            run = self._hub.open(asked.call, asked.options.policy, asked.claim)
            return self.response(run, asked.call.caller, media_type, options, bare=bare)
        return self._opened_everywhere(asked, lambda run: self.response(run, asked.call.caller, media_type, options, bare=bare))

    def begun(self, asked: RunRequest, preferences: Preferences) -> Response:
        """Start the run that is asked for, in the background, and return what `started` says of it.

        Raises:
            GatewayError: as `opened`.
        """
        if self._hub.others is None:
            return self.started(self._hub.open(asked.call, asked.options.policy, asked.claim), asked.call.caller, preferences)
        return self._opened_everywhere(asked, lambda run: self.started(run, asked.call.caller, preferences))

    def _opened_everywhere(self, asked: RunRequest, make: Callable[[RunSource], Response]) -> Response:
        return self._deferred(lambda: self._hub.start(asked.call, asked.options.policy, asked.claim), make)

    def _deferred(
        self, ask: Callable[[], Awaitable[RunSource]], make: Callable[[RunSource], Response], unknown: Callable[[], Response] | None = None
    ) -> Response:
        return DeferredResponse(ask, make, unknown=unknown, debug=self._settings.debug)

    def head(self, media_type: str, last_event_id: str | None = None) -> Response:
        """Return what a HEAD gets: what a GET would be, and no run is started or read for it."""
        if last_event_id is not None and self._place(last_event_id, None) is None:
            return Response(status_code=204)
        return Response(media_type=media_type, headers={"Cache-Control": "no-cache, no-transform", "Vary": "Accept"})

    def started(self, run: RunSource, caller: Caller, preferences: Preferences) -> Response:
        """Return the answer to who started a run in the background: 202 and where it is; its result where it ended within the wait."""
        location = {"Location": f"/v1/runs/{run.id}"}
        return self._awaited(run, caller, preferences, location) if preferences.wait_s else self._state(run, preferences, location)

    def result(self, run: RunSource, caller: Caller, preferences: Preferences) -> Response:
        """Return a run's result; 202 and its state while there is none, after the wait that was asked for."""
        retry = {"Retry-After": "1"}
        if run.known_end is None and not preferences.wait_s:
            return self._state(run, preferences, retry)
        return self._awaited(run, caller, preferences, retry)

    def _awaited(self, run: RunSource, caller: Caller, preferences: Preferences, pending: Mapping[str, str]) -> Response:
        return AwaitedRun(
            run,
            wait_s=preferences.wait_s,
            result=lambda: self._collected(run, caller, ReaderOptions(role=Role.OBSERVER), preferences.applied()),
            pending=lambda: self._state(run, preferences, pending),
        )

    @staticmethod
    def _state(run: RunSource, preferences: Preferences, headers: Mapping[str, str]) -> Response:
        limits = {} if run.account is None else ratelimit.fields(run.account.quotas())
        return JSONResponse(describe(run), 202, {"Cache-Control": "no-store", **headers, **limits, **preferences.applied()})

    def _collected(
        self, run: RunSource, caller: Caller, options: ReaderOptions, headers: Mapping[str, str] | None = None, *, bare: bool = False
    ) -> Response:
        settings = self._settings
        limit = settings.result_limit_bytes
        return CollectedRun(
            run, caller, settings.timing, limit_bytes=limit, options=options, headers=headers, bare=bare, debug=settings.debug
        )

    @staticmethod
    def _place(last_event_id: str, of: str | None) -> tuple[str, int] | None:
        """Return the run and the chunk that an event id names, None for an end: everything was delivered.

        To that, 204 is the one answer after which EventSource stops (WHATWG HTML §9.2.3).

        Raises:
            GatewayError: `invalid-option`, it is no event id, or another run's.
        """
        place = parse_event_id(last_event_id)
        if place is None or of not in (None, place[0]):
            allowed = "an event id of this gateway, <run>.<number>" if of is None else f"an event id of this run, {of}.<number>"
            raise invalid_option("Last-Event-ID", f"is {last_event_id[:60]!r}; allowed: {allowed}")
        run_id, after = place
        return None if after is None else (run_id, after)

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

    def _shared_encoder(self, run: RunSource, media_type: str) -> Encoder:
        """Return the encoder that all readers of a run in this format have in common, so that a batch is encoded once."""
        encoder: Encoder | None = run.shared(media_type)
        if encoder is None:
            encoder = self.encoder(run.id, media_type)
            run.share(media_type, encoder)
        return encoder


METHODS = frozenset({"GET", "HEAD", "POST"})
ROUTE = "/v1/tools/{tool}/stream"


def endpoint(reader: CallReader, responses: RunResponses) -> Endpoint:
    """Return what answers a request for a tool's stream."""

    def stream(request: RequestHead, tool: str, body: bytes) -> Response:
        media_type = choose(request.header(b"accept"), OFFERED)
        is_head = request.method == "HEAD"
        caller = caller_of(request.scope)
        if (resumption := reader.resumption(request)) is not None:
            return responses.head(media_type, resumption[0]) if is_head else responses.resumed(caller, *resumption, media_type)
        preferences = prefer.read(request.header(prefer.FIELD), wait_limit_s=responses.wait_limit_s)
        in_background = preferences.respond_async
        asked = reader.read(request, tool, body, streaming=True, on_disconnect=CONTINUE if in_background else CANCEL)
        options = reader.reader(asked)
        if is_head:
            reader.hub.check(asked.call)
            return responses.head(media_type)
        return responses.begun(asked, preferences) if in_background else responses.opened(asked, media_type, options)

    return Endpoint(stream, METHODS, reader.limits.body_bytes, ROUTE)


def router(answers: Endpoint) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["streams"])

    async def stream(request: Request, tool: str) -> Response:
        return await answers(request, tool)

    routes.add_api_route(ROUTE, stream, methods=["GET"], **STREAM_GET)
    routes.add_api_route(ROUTE, stream, methods=["HEAD"], include_in_schema=False)
    routes.add_api_route(ROUTE, stream, methods=["POST"], **STREAM_POST)
    return routes
