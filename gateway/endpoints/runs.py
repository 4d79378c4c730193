"""Runs by their id: list, state, result, events, cancel. `DELETE` and an empty `POST …/cancel` (for navigator.sendBeacon) are the same.

Everywhere a run is its caller's; to all others it is not there.

Source: docs of the protocol, sections 1 and 3.
"""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.caller import caller_of
from gateway.endpoints import collected, prefer
from gateway.endpoints.contract import CANCEL_DELETE, CANCEL_POST, RUN, RUN_EVENTS, RUN_RESULT, RUNS
from gateway.endpoints.head import RequestHead
from gateway.endpoints.negotiation import choose
from gateway.endpoints.options import READER_OPTIONS, read_options, reader_from
from gateway.endpoints.paging import read_limit, read_query
from gateway.endpoints.requests import CallReader
from gateway.endpoints.runstate import STATES, describe
from gateway.endpoints.stream import OFFERED, RunResponses
from gateway.runs.hub import Hub
from gateway.runs.policy import invalid_option

LIST_NAMES = ("limit", "cursor", "state", "tool")


def router(hub: Hub, reader: CallReader, responses: RunResponses) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["runs"])

    async def some(request: Request) -> Response:
        asked = read_query(request, LIST_NAMES)
        limit, state = read_limit(asked.get("limit")), asked.get("state")
        if state is not None and state not in STATES:
            raise invalid_option("state", f"is {state[:40]!r}; allowed: {', '.join(STATES)}")
        found, next_cursor = await hub.page(
            caller_of(request.scope), limit=limit, after=asked.get("cursor"), state=state, tool=asked.get("tool")
        )
        following = None if next_cursor is None else f"/v1/runs?{urlencode({**asked, 'cursor': next_cursor})}"
        headers = {"Cache-Control": "no-store"} | ({} if following is None else {"Link": f'<{following}>; rel="next"'})
        return JSONResponse({"runs": [describe(run) for run in found], "cursor": next_cursor, "next": following}, headers=headers)

    async def state(request: Request, run: str) -> Response:
        return JSONResponse(describe(await hub.look_up(run, caller_of(request.scope))))

    async def result(request: Request, run: str) -> Response:
        choose(request.headers.get("accept"), (collected.MEDIA_TYPE,))
        preferences = prefer.read(request.headers.get(prefer.HEADER), wait_limit_s=responses.wait_limit_s)
        caller = caller_of(request.scope)
        return responses.result(await hub.look_up(run, caller), caller, preferences)

    async def events(request: Request, run: str) -> Response:
        caller = caller_of(request.scope)
        media_type = choose(request.headers.get("accept"), OFFERED)
        if (resumption := reader.resumption(RequestHead(request.scope), names=READER_OPTIONS)) is not None:
            return responses.resumed(caller, *resumption, media_type, of=run)
        arguments, given = reader.split_query(request.scope["query_string"])
        if arguments:
            raise invalid_option(arguments[0][0][:60], f"is no option; known: {', '.join(READER_OPTIONS)}")
        options = read_options(given, reader.limits.options, names=READER_OPTIONS)
        if options.begins is not None and options.begins.isdigit():
            return responses.resumed(caller, f"{run}.{options.begins}", options.reader, media_type, of=run)
        return responses.response(await hub.look_up(run, caller), caller, media_type, reader_from(options.reader, options.begins))

    async def cancel(request: Request, run: str) -> Response:
        return JSONResponse(describe(await hub.cancel(run, caller_of(request.scope))))

    routes.add_api_route("/v1/runs", some, methods=["GET"], **RUNS)
    routes.add_api_route("/v1/runs/{run}", state, methods=["GET"], **RUN)
    routes.add_api_route("/v1/runs/{run}/result", result, methods=["GET"], **RUN_RESULT)
    routes.add_api_route("/v1/runs/{run}/events", events, methods=["GET"], **RUN_EVENTS)
    routes.add_api_route("/v1/runs/{run}", cancel, methods=["DELETE"], **CANCEL_DELETE)
    routes.add_api_route("/v1/runs/{run}/cancel", cancel, methods=["POST"], **CANCEL_POST)
    return routes
