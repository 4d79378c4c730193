"""A run's chunks as ToolChunk messages, for one gRPC caller.

Chunk ids, raw bytes and metadata are the worker's own, in its order. What is final is decorated, each final of several; an
empty one is told with the chunk behind it or at the end. Where the worker sent none, the last message is made up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.caller import Caller
from gateway.errors import GatewayError
from gateway.events import ChunkAttributes, Chunks, Ended, Marks, Outcome
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.runs.source import RunSource

_PLAIN = ChunkAttributes()


class ChunkReader:
    """A reader of a run. `error` is set once `read` has returned None for a run that failed."""

    def __init__(self, run: RunSource, caller: Caller) -> None:
        self._run = run
        self._signal = asyncio.Event()
        self._reader = run.subscribe(self._signal.set, caller)
        self._reader.format = "grpc"
        # The chunks so far, by number: an empty final has the number that the next one will have.
        self._number = 0
        self._has_final = False
        self.error: GatewayError | None = None

    async def read(self) -> list[pb.ToolChunk] | None:
        """Return the next chunks, at least one, or None after the end."""
        while not self._reader.finished:
            event = self._reader.take()
            if isinstance(event, Chunks):
                return self._messages(event)
            if isinstance(event, Ended):
                return self._last(event)
            if self._reader.cut:
                self.error = GatewayError("slow-reader", "The reader fell too far behind")
                return None
            if event is None:
                await self._signal.wait()
                self._signal.clear()
        return None

    def close(self) -> None:
        """Leave the run; idempotent."""
        self._reader.close()

    def _messages(self, chunks: Chunks) -> list[pb.ToolChunk]:
        tool = self._run.tool
        attributes = chunks.attributes or {}
        messages: list[pb.ToolChunk] = []
        for number, payload in enumerate(chunks.payloads, chunks.first):
            extra = attributes.get(number, _PLAIN)
            if extra.ahead:
                messages += self._marks(extra.ahead, number)
            chunk = pb.ToolChunk(
                chunk_id=extra.chunk_id or f"{tool}-{number}",
                data=payload if extra.raw is None else extra.raw,
                is_final=extra.is_final,
                metadata=dict(extra.metadata),
            )
            if extra.is_final:
                self._has_final = True
                _add(chunk, self._decoration())
            messages.append(chunk)
        self._number = chunks.first + len(chunks.payloads) - 1
        return messages

    def _last(self, end: Ended) -> list[pb.ToolChunk] | None:
        """Return what the end adds: the finals behind the last chunk, or one where there was none."""
        added = self._marks(end.marks, self._number + 1)
        if end.outcome is not Outcome.OK:
            self.error = end.error
        elif not self._has_final and "synthetic_final" in end.metadata:
            # Not one that another gateway has made up, which came as any final.
            metadata = {name: value for name, value in end.metadata.items() if name != "worker_id"}
            final = pb.ToolChunk(chunk_id=f"sp-final-{self._number + 1}", is_final=True, metadata=metadata)
            final.metadata["chunks_sent"] = str(end.chunks)
            added.append(final)
        return added or None

    def _marks(self, marks: Marks, number: int) -> list[pb.ToolChunk]:
        """Return finals without data as messages; `number` is that of the chunk they stand ahead of."""
        messages = []
        for mark in marks:
            self._has_final = True
            final = pb.ToolChunk(chunk_id=mark.chunk_id or f"{self._run.tool}-{number}", is_final=True, metadata=dict(mark.metadata))
            _add(final, self._decoration())
            messages.append(final)
        return messages

    def _decoration(self) -> dict[str, str]:
        """Return what Snakepit adds to a final chunk that comes now."""
        timing = self._run.timing()
        decoration = {"execution_time_ms": str(timing.total_ms - (timing.queue_ms or 0)), "tool_type": "remote"}
        if self._run.worker_id is not None:
            decoration["worker_id"] = self._run.worker_id
        return decoration


def _add(final: pb.ToolChunk, decoration: Mapping[str, Any]) -> None:
    """Add to a final's metadata what it doesn't say itself."""
    for name, value in decoration.items():
        if name not in final.metadata:
            final.metadata[name] = value
