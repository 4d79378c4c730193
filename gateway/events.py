"""What a run says over time: the same events on every front door.

A reader of a run sees `Started`, then any number of `Chunks`, `Status` and `Gap`, then exactly one `Ended`.
codec/ writes them as SSE, NDJSON or WebSocket frames, bridge/ as ToolChunks. The unit is the batch: one
`Chunks` is all that arrived together, so nothing is allocated, awaited or locked for each chunk. What is made for
every run or batch is a named tuple: a frozen dataclass costs several times as much to make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.call import NOTHING
from gateway.errors import GatewayError


class Outcome(StrEnum):
    """How a run ended, or one reader of it: the `status` of its end event."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    EXPIRED = "expired"
    SHUTDOWN = "shutdown"
    # Of one reader, whose credential has expired: the run may go on.
    AUTH_EXPIRED = "auth_expired"


# Outcomes of a reader, never of a run.
READER_OUTCOMES = frozenset({Outcome.EXPIRED, Outcome.AUTH_EXPIRED})


@dataclass(frozen=True, slots=True)
class ChunkAttributes:
    """What a chunk carries besides its JSON value; most chunks have none.

    `raw` holds the bytes as the worker sent them where those were not JSON; `chunk_id` the worker's own id
    where it isn't `<tool>-<n>`. Only the gRPC front door needs these.
    """

    is_final: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    chunk_id: str | None = None


class Started(NamedTuple):
    """The first event for every reader. `resumed_from` is the sequence number that a re-attached reader starts at."""

    run: str
    tool: str
    details: Mapping[str, Any]
    resumed_from: int | None = None


class Chunks(NamedTuple):
    """A batch of chunks that arrived together.

    `payloads[i]` is the JSON text (UTF-8) of chunk number `first + i`; numbers begin at 1 and have no holes.
    `attributes` maps a sequence number to what else that chunk carries; None where no chunk carries anything.
    `size_bytes` is what the batch holds in memory: the payloads' lengths and the objects' overhead.
    """

    first: int
    payloads: list[bytes]
    size_bytes: int
    attributes: Mapping[int, ChunkAttributes] | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A run's state while it has nothing else to say: queued with its position, or running on a worker."""

    state: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gap:
    """Chunks `first` to `last` can't be delivered to this reader: they were `evicted`, or it was a `slow_consumer`."""

    first: int
    last: int
    reason: str


class Timing(NamedTuple):
    """Milliseconds since the run was accepted; None for what never happened."""

    queue_ms: int | None
    first_chunk_ms: int | None
    total_ms: int


class Ended(NamedTuple):
    """The last event, exactly once. `chunks` counts the chunks of the run, not those of this reader.

    `metadata` is the final chunk's, decorated as Snakepit decorates it. `error` is set unless `outcome` is OK.
    """

    outcome: Outcome
    chunks: int
    metadata: Mapping[str, str] = NOTHING
    timing: Timing | None = None
    error: GatewayError | None = None


Event = Started | Chunks | Status | Gap | Ended
