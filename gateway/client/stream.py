"""What a stream and a run are to both shells: what they know, apart from how their I/O is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import length_hint
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
        self._conversation = reading.conversation()
        # What came with the opening, and is yet to be handed out.
        self._first: Sequence[Item] = ()
        self._is_open = False
        self._is_closed = False
        # The number of the last chunk of the batch that is handed out, and what is left of that. An iterator over a list knows how much
        # that is, so nothing has to be counted for each chunk.
        self._last = reading.position
        self._left: Iterator[Any] = iter(())
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
        """The number of the last chunk that you were handed, 0 before the first; None at a live end where none has come."""
        return None if self._last is None else self._last - length_hint(self._left)

    @property
    def last_event_id(self) -> str | None:
        """The place to go on from, for `attach` in another program; None while there is none."""
        return None if self.run_id is None or self.position is None else f"{self.run_id}.{self.position}"

    def _values(self, item: Item) -> Iterator[Any]:
        """Return what an iterator over values hands out for an item: chunks' values, and gaps."""
        if isinstance(item, Chunks):
            return self._hand_out(item, item.values)
        return self._events(item) if isinstance(item, Gap) else iter(())

    def _events(self, item: Item) -> Iterator[Any]:
        """Return what an iterator over events hands out for an item: each chunk as a `Chunk`, everything else as it is."""
        if isinstance(item, Chunks):
            pairs = zip(item.values, item.texts, strict=True)
            return self._hand_out(item, [Chunk(number, value, text) for number, (value, text) in enumerate(pairs, item.first)])
        if isinstance(item, Gap):
            self._last = item.last
        return iter((item,))

    def _hand_out(self, chunks: Chunks, values: list[Any]) -> Iterator[Any]:
        self._last = chunks.first + len(values) - 1
        self._left = iter(values)
        return self._left


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
