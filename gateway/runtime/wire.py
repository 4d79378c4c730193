"""Encoded chunks as the messages of a stream, numbered `<tool>-<n>` from 1.

Used by servicer.py: StreamTool sends batches, ExecuteStreamingTool single chunks. A batch is written by hand,
since building and serialising a message costs most of what a worker spends on a chunk: protobuf messages
concatenate, so it is the join of one-chunk messages, and those of one payload size differ only in their number
and their payload. Tests hold the bytes against the generated code.
"""

from __future__ import annotations

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import worker_pb2 as worker
from gateway.runtime.chunk import Encoded, Marked

# What is before the payload is kept for payloads up to here; above it the copying dominates.
_HEAD_LIMIT_BYTES = 2048


class Numbering:
    """Makes one stream's messages, in order; each chunk goes through once."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._number = 0
        # Payload size -> what is before the payload, `%d` for the number; right for numbers below `_heads_until`.
        self._heads: dict[int, bytes] = {}
        self._heads_until = 0

    def single(self, chunk: Encoded) -> bridge.ToolChunk:
        """Return the next chunk as a message of its own."""
        self._number += 1
        chunk_id = f"{self._tool}-{self._number}"
        if isinstance(chunk, Marked):
            return bridge.ToolChunk(chunk_id=chunk_id, data=chunk.data, is_final=chunk.is_final, metadata=chunk.metadata)
        return bridge.ToolChunk(chunk_id=chunk_id, data=chunk)

    def batch(self, chunks: list[Encoded]) -> bytes:
        """Return the next chunks as one serialised ToolChunks."""
        parts: list[bytes] = []
        for chunk in chunks:
            head = self._heads.get(len(chunk))
            if head is None or type(chunk) is not bytes or self._number + 1 >= self._heads_until:
                parts.append(self._serialised(chunk))
            else:
                self._number += 1
                parts.append(head % self._number)
                parts.append(chunk)
        return b"".join(parts)

    def _serialised(self, chunk: Encoded) -> bytes:
        message = worker.ToolChunks(chunks=[self.single(chunk)]).SerializeToString()
        if self._number >= self._heads_until:
            # One digit more: the lengths in what is before the payload are others.
            self._heads.clear()
            self._heads_until = 10 ** len(str(self._number))
        if type(chunk) is bytes and len(chunk) <= _HEAD_LIMIT_BYTES:
            before, number, after = message[: len(message) - len(chunk)].rpartition(b"-%d" % self._number)
            self._heads[len(chunk)] = before.replace(b"%", b"%%") + number[:1] + b"%d" + after.replace(b"%", b"%%")
        return message
