"""A run's chunks as ToolChunk messages, for one gRPC caller.

Chunk ids, raw bytes and metadata are the worker's own; the final chunk is decorated. A worker's empty final
chunk, and the one that is made up where there was none, are the last message.
"""

from __future__ import annotations

import asyncio

from gateway.caller import Caller
from gateway.errors import GatewayError
from gateway.events import ChunkAttributes, Chunks, Ended, Outcome
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
        # A chunk that the worker marked as final waits for the end, which knows how to decorate it.
        self._held: pb.ToolChunk | None = None
        self.error: GatewayError | None = None

    async def read(self) -> list[pb.ToolChunk] | None:
        """Return the next chunks, at least one, or None after the end."""
        while not self._reader.finished:
            event = self._reader.take()
            if isinstance(event, Chunks):
                messages = self._messages(event)
                if messages:
                    return messages
            elif isinstance(event, Ended):
                return self._last(event)
            elif self._reader.cut:
                self.error = GatewayError("slow-reader", "The reader fell too far behind")
                return None
            elif event is None:
                await self._signal.wait()
                self._signal.clear()
        return None

    def close(self) -> None:
        """Leave the run; idempotent."""
        self._reader.close()

    def _messages(self, chunks: Chunks) -> list[pb.ToolChunk]:
        tool = self._run.tool
        attributes = chunks.attributes or {}
        messages = []
        for number, payload in enumerate(chunks.payloads, chunks.first):
            extra = attributes.get(number, _PLAIN)
            chunk = pb.ToolChunk(
                chunk_id=extra.chunk_id or f"{tool}-{number}",
                data=payload if extra.raw is None else extra.raw,
                is_final=extra.is_final,
                metadata=dict(extra.metadata),
            )
            if self._held is not None:
                messages.append(self._held)
                self._held = None
            if extra.is_final:
                self._held = chunk
            else:
                messages.append(chunk)
        return messages

    def _last(self, end: Ended) -> list[pb.ToolChunk] | None:
        """Return what the end adds: the final chunk, decorated."""
        if end.outcome is not Outcome.OK:
            self.error = end.error
            held = [] if self._held is None else [self._held]
            return held or None
        final = self._held
        if final is None:
            synthetic = "synthetic_final" in end.metadata
            number = self._run.log.next
            final = pb.ToolChunk(chunk_id=f"sp-final-{number}" if synthetic else f"{self._run.tool}-{number}", is_final=True)
            if synthetic:
                final.metadata["chunks_sent"] = str(end.chunks)
        for name, value in end.metadata.items():
            if name not in final.metadata:
                final.metadata[name] = value
        return [final]
