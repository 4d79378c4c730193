"""A run as the API shows it: its state, and where to go on from there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.codec import documents
from gateway.events import READER_OUTCOMES, Outcome
from gateway.runs.identity import created_ms
from gateway.runs.source import RunSource
from gateway.sessions import session_id_of

# What a run's `state` may be; what only a reader may be told is left out.
STATES = ("queued", "running", *(outcome.value for outcome in Outcome if outcome not in READER_OUTCOMES))


def describe(run: RunSource) -> dict[str, Any]:
    """Return a run's state: `queue` while it waits, `end` once it has ended; the time is RFC 3339 in UTC."""
    uri = f"/v1/runs/{run.id}"
    created = datetime.fromtimestamp(created_ms(run.id) / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    document: dict[str, Any] = {
        "run": run.id,
        "tool": run.tool,
        "state": run.state,
        "created_at": created,
        "session": None if run.session_id is None else session_id_of(run.session_id, run.caller_id),
        "pool": run.pool,
        "worker": run.worker_id,
        "chunks": run.chunks,
        "on_disconnect": run.on_disconnect,
        "links": {"self": uri, "events": f"{uri}/events", "result": f"{uri}/result", "cancel": f"{uri}/cancel"},
    }
    if run.place is not None:
        document["queue"] = {"position": run.place[0], "depth": run.place[1]}
    if run.known_end is not None:
        document["end"] = documents.ended(run.known_end, uri)
    return document
