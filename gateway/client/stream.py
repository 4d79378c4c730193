"""What a stream and a run are to both shells: what they know, apart from how their I/O is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.client.reading import Chunks, End, Gap, Item, Reading


class StopStream(Exception):
    """Raised by a callback of `execute_stream` to stop the stream; the run is cancelled, and nothing else happens."""


class Chunk(NamedTuple):
    """One chunk: its number from 1, its value, and its JSON as the gateway sent it."""

    number: int
    value: Any
    text: bytes


class StreamState:
    """What is known of a stream so far; before the first event mostly nothing."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        # Whether the gateway has confirmed that it cancelled the run when we left.
        self.is_cancelled = False

    @property
    def run_id(self) -> str | None:
        """The run's id; None before its start."""
        return self._reading.run_id

    @property
    def start(self) -> Mapping[str, Any] | None:
        """The `start` event's data: tool, policy and deadlines in force, links; None before it has come."""
        return self._reading.start

    @property
    def end(self) -> End | None:
        """How the run ended; None before that."""
        return self._reading.end

    @property
    def metadata(self) -> Mapping[str, str]:
        """The final chunk's metadata, with `execution_time_ms`, `worker_id` and others; empty before the end."""
        return {} if self._reading.end is None else self._reading.end.metadata

    @property
    def position(self) -> int | None:
        """The number of the last chunk that has come, 0 before the first; None at a live end where none has."""
        return self._reading.position

    @property
    def last_event_id(self) -> str | None:
        """The place to go on from, for `attach` in another program; None while there is none."""
        return self._reading.last_event_id


def values_in(items: Sequence[Item]) -> list[Any]:
    """Return what an iterator over values yields for these: chunks' values, and gaps."""
    if len(items) == 1 and isinstance(items[0], Chunks):
        return items[0].values
    found: list[Any] = []
    for item in items:
        if isinstance(item, Chunks):
            found += item.values
        elif isinstance(item, Gap):
            found.append(item)
    return found


def events_in(items: Sequence[Item]) -> list[Any]:
    """Return what an iterator over events yields for these: each chunk as a `Chunk`, everything else as it is."""
    found: list[Any] = []
    for item in items:
        if isinstance(item, Chunks):
            found += [
                Chunk(number, value, text) for number, (value, text) in enumerate(zip(item.values, item.texts, strict=True), item.first)
            ]
        else:
            found.append(item)
    return found


class RunState:
    """A run as it was when it was last looked at; `document` is all that was said of it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    @property
    def id(self) -> str:
        """The run's id."""
        return str(self.document["run"])

    @property
    def tool(self) -> str:
        """Its tool."""
        return str(self.document["tool"])

    @property
    def state(self) -> str:
        """`queued`, `running`, or how it ended: `ok`, `error`, `cancelled`, `deadline`, `shutdown`."""
        return str(self.document["state"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.tool} {self.state}>"
