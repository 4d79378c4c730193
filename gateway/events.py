"""What a run says over time: the same events on every front door.

A reader of a run sees `Started`, then any number of `Chunks`, `Status` and `Gap`, then exactly one `Ended`.
codec/ writes them as SSE, NDJSON or WebSocket frames, bridge/ as ToolChunks. The unit is the batch: one
`Chunks` is all that arrived together, so nothing is allocated, awaited or locked for each chunk. What is made for
every run or batch is a Value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, final

from gateway.call import NOTHING
from gateway.errors import GatewayError
from gateway.value import Value


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
    where it isn't `<tool>-<n>`. `ahead` are the final marks that came between the chunk before and this one: finals without
    data, which are no chunks. Only the gRPC front door needs these.
    """

    is_final: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    chunk_id: str | None = None
    ahead: tuple[ChunkAttributes, ...] = ()


# Finals without data, in order.
Marks = tuple[ChunkAttributes, ...]


@final
class Started(Value):
    """The first event for every reader. `resumed_from` is the sequence number that a re-attached reader starts at."""

    __slots__ = ("run", "tool", "details", "resumed_from")  # noqa: RUF023

    def __init__(self, run: str, tool: str, details: Mapping[str, Any], resumed_from: int | None = None) -> None:
        self.run = run
        self.tool = tool
        self.details = details
        self.resumed_from = resumed_from


@final
class Chunks(Value):
    """A batch of chunks that arrived together.

    `payloads[i]` is the JSON text (UTF-8) of chunk number `first + i`; numbers begin at 1 and have no holes.
    `attributes` maps a sequence number to what else that chunk carries; None where no chunk carries anything.
    `size_bytes` is what the batch holds in memory: the payloads' lengths and the objects' overhead.
    """

    __slots__ = ("first", "payloads", "size_bytes", "attributes")  # noqa: RUF023

    def __init__(self, first: int, payloads: list[bytes], size_bytes: int, attributes: Mapping[int, ChunkAttributes] | None = None) -> None:
        self.first = first
        self.payloads = payloads
        self.size_bytes = size_bytes
        self.attributes = attributes


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


@final
class Timing(Value):
    """Milliseconds since the run was accepted; None for what never happened."""

    __slots__ = ("queue_ms", "first_chunk_ms", "total_ms")  # noqa: RUF023

    def __init__(self, queue_ms: int | None, first_chunk_ms: int | None, total_ms: int) -> None:
        self.queue_ms = queue_ms
        self.first_chunk_ms = first_chunk_ms
        self.total_ms = total_ms


@final
class Ended(Value):
    """The last event, exactly once. `chunks` counts the chunks of the run, not those of this reader.

    `metadata` is the final chunk's, decorated as Snakepit decorates it. `error` is set unless `outcome` is OK.
    `marks` are the final marks behind the last chunk (see ChunkAttributes.ahead).
    """

    __slots__ = ("outcome", "chunks", "metadata", "timing", "error", "marks")  # noqa: RUF023

    def __init__(
        self,
        outcome: Outcome,
        chunks: int,
        metadata: Mapping[str, str] = NOTHING,
        timing: Timing | None = None,
        error: GatewayError | None = None,
        marks: Marks = (),
    ) -> None:
        self.outcome = outcome
        self.chunks = chunks
        self.metadata = metadata
        self.timing = timing
        self.error = error
        self.marks = marks


Event = Started | Chunks | Status | Gap | Ended
