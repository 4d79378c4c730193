"""What an operator sees of everybody's runs: `GET /v1/admin/runs`, those that are open on this gateway, with who asked and who reads.

A route of its own, apart from `/v1/runs`, so that who may not look at others' runs can be kept out by its path. It looks at the runs of
this process only: what a reader lags or how long a tool has been silent is known nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from gateway.endpoints.contract import ADMIN_RUNS
from gateway.endpoints.paging import read_limit, read_query
from gateway.endpoints.runstate import describe
from gateway.runs.hub import Hub
from gateway.runs.identity import is_run_id
from gateway.runs.policy import invalid_option
from gateway.runs.run import Run
from gateway.runs.subscription import Subscription

OPEN_STATES = ("queued", "running")
LIST_NAMES = ("limit", "cursor", "state", "tool", "pool", "caller")
# Of one run; how many there are is said besides.
READERS_LIMIT = 20

_FILTERS: Mapping[str, Callable[[Run], str | None]] = {
    "state": lambda run: run.state,
    "tool": lambda run: run.tool,
    "pool": lambda run: run.pool,
    "caller": lambda run: run.call.caller.id,
}


def router(hub: Hub) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["operations"])

    async def live(request: Request) -> Response:
        asked = read_query(request, LIST_NAMES)
        limit, cursor, state = read_limit(asked.get("limit")), asked.get("cursor"), asked.get("state")
        if state is not None and state not in OPEN_STATES:
            raise invalid_option("state", f"is {state[:40]!r}; allowed: {', '.join(OPEN_STATES)}")
        if cursor is not None and not is_run_id(cursor):
            raise invalid_option("cursor", f"is {cursor[:40]!r}; it is what `cursor` of the page before says")
        wanted = {name: asked[name] for name in _FILTERS if name in asked}
        found = [run for run in hub.live_runs if all(_FILTERS[name](run) == value for name, value in wanted.items())]
        # Ids sort by age; the newest come first, as in /v1/runs.
        found.sort(key=lambda run: run.id, reverse=True)
        rest = [run for run in found if cursor is None or run.id < cursor]
        page = rest[:limit]
        next_cursor = page[-1].id if len(rest) > limit else None
        following = None if next_cursor is None else f"/v1/admin/runs?{urlencode({**asked, 'cursor': next_cursor})}"
        document = {"runs": [describe_live(run) for run in page], "total": len(found), "cursor": next_cursor, "next": following}
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    routes.add_api_route("/v1/admin/runs", live, methods=["GET"], **ADMIN_RUNS)
    return routes


def describe_live(run: Run) -> dict[str, Any]:
    """Return what an operator sees of an open run: its state as its owner sees it, and who asked, how it goes, who reads."""
    correlation, timing = run.call.correlation, run.timing()
    readers = [_describe_reader(run, reader) for reader in run.readers[:READERS_LIMIT]]
    return describe(run) | {
        "caller": run.call.caller.id,
        "request_id": correlation.request_id or None,
        "trace_id": run.trace_id,
        "age_ms": timing.total_ms,
        "queue_ms": timing.queue_ms,
        "first_chunk_ms": timing.first_chunk_ms,
        "silent_ms": run.silent_ms,
        "bytes": run.size_bytes,
        "paused": run.paused,
        "reader_count": len(run.readers),
        "readers": readers,
    }


def _describe_reader(run: Run, reader: Subscription) -> dict[str, Any]:
    log = run.log
    return {
        "format": reader.format,
        "role": reader.options.role.value,
        "overflow": reader.options.overflow.value,
        "lag_chunks": log.next - reader.cursor,
        "lag_bytes": max(0, log.total_bytes - reader.taken_bytes),
    }
