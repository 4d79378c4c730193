"""A run's record, which every gateway can find, and the claim that makes a request the same run again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.caller import ANONYMOUS
from gateway.codec.values import json_bytes
from gateway.events import Ended
from gateway.runlog.shared.entries import decode_end

# The fields of a record's hash that `read_record` takes, in its order.
FIELDS = ("record", "owner", "created", "state", "chunks", "end", "ended")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run. Who registers it sets what stands above `owner`, and the last two; the log knows the rest.

    `kind` is `stream` or `unary`, `policy` the disconnect policy's text, `details` any JSON object for the front doors.
    `caller` is the id of whose run it is, `ticket` the one-time ticket that it was started with.
    `state` is `queued`, `running`, or the outcome. `chunks` counts those that the log has heard of. Times are Unix
    milliseconds by the server's clock.
    """

    id: str
    tool: str
    pool: str | None = None
    session: str | None = None
    policy: str = ""
    kind: str = "stream"
    details: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    created_at_ms: int = 0
    state: str = "queued"
    chunks: int = 0
    ended: Ended | None = None
    ended_at_ms: int | None = None
    caller: str = ANONYMOUS.id
    ticket: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key (unique over all who use the log) and the fingerprint of the request that came with it."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first. `cursor` leads to the next page; None: there is none.

    A page may hold fewer than were asked for, even none, and still have a next one: looking for rare ones is bounded.
    """

    runs: Sequence[RunRecord]
    cursor: str | None


def encode_record(record: RunRecord) -> bytes:
    """Return what of a record never changes, as JSON.

    What is not said is the default: gateways from before there were callers can read each other's records, and ours of ANONYMOUS.
    """
    whose = {} if record.caller == ANONYMOUS.id else {"caller": record.caller}
    by_ticket = {} if record.ticket is None else {"ticket": record.ticket}
    return json_bytes(
        {
            "id": record.id,
            "tool": record.tool,
            "pool": record.pool,
            "session": record.session,
            "policy": record.policy,
            "kind": record.kind,
            "details": dict(record.details),
            **whose,
            **by_ticket,
        }
    )


def read_record(values: Sequence[bytes | None]) -> RunRecord | None:
    """Return the record whose FIELDS have these values; None where there is none."""
    document, owner, created, state, chunks, end, ended = values
    if document is None or owner is None or created is None or state is None or chunks is None:
        return None
    count = int(chunks)
    record = RunRecord(**json.loads(document), owner=owner.decode(), created_at_ms=int(created), state=state.decode(), chunks=count)
    if end is None or ended is None:
        return record
    return replace(record, ended=decode_end(end, count), ended_at_ms=int(ended))
