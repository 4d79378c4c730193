"""Encoded chunks as the messages of a stream, numbered `<tool>-<n>` from 1.

Used by servicer.py: StreamTool sends batches, ExecuteStreamingTool single chunks. In a batch, chunks that are
nothing but their JSON text are payloads without a message of their own: building and reading messages would
cost several times the rest of what a chunk costs on this path.
"""

from __future__ import annotations

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import worker_pb2 as worker
from gateway.runtime.chunk import Encoded, Marked


class Numbering:
    """Makes one stream's messages, in order; each chunk goes through once."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._number = 0

    def single(self, chunk: Encoded) -> bridge.ToolChunk:
        """Return the next chunk as a message of its own."""
        self._number += 1
        chunk_id = f"{self._tool}-{self._number}"
        if isinstance(chunk, Marked):
            return bridge.ToolChunk(chunk_id=chunk_id, data=chunk.data, is_final=chunk.is_final, metadata=chunk.metadata)
        return bridge.ToolChunk(chunk_id=chunk_id, data=chunk)

    def batch(self, chunks: list[Encoded]) -> worker.ToolChunks:
        """Return the next chunks as one message: payloads up to the first marked chunk, then single chunks."""
        payloads: list[bytes] = []
        for chunk in chunks:
            if isinstance(chunk, Marked):
                break
            payloads.append(chunk)
        self._number += len(payloads)
        return worker.ToolChunks(payloads=payloads, chunks=[self.single(chunk) for chunk in chunks[len(payloads) :]])
