"""One ExecuteStreamingTool on the upstream: the bytes of its DATA frames, prepared once for each stream.

Called by connection.py, which owns the windows. Every message is one DATA frame, as gRPC servers write it, or
several where it is larger than a frame or than the window. Keeps Snakepit's ending: an empty final chunk.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from benchmarks import stamp
from benchmarks.plan import ENDLESS, Plan
from gateway.rpc.snakepit_bridge_pb2 import ToolChunk

FRAME_LIMIT_BYTES = 16384
# What one stream sends before the next one has its turn.
TURN_BYTES = 16384
# Chunks of a paced stream that wait for the window; past it the stream falls behind its interval.
OWED_LIMIT = 1000

CHUNK_ID = "bench-0"


def prefixed(message: bytes) -> bytes:
    """Return a gRPC message with its five-byte prefix: not compressed, length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


@lru_cache(maxsize=16)
def prepared(size: int) -> bytes:
    """Return the message of a chunk with `size` bytes of JSON."""
    head = b'{"t":%b,"p":"' % stamp.now()
    data = head + b"x" * (size - len(head) - 2) + b'"}'
    return prefixed(ToolChunk(chunk_id=CHUNK_ID, data=data).SerializeToString())


FINAL = prefixed(ToolChunk(chunk_id=CHUNK_ID, is_final=True).SerializeToString())


class Execution:
    """One stream's state: what is left to send, and its window."""

    def __init__(self, stream_id: int, window: int, plan: Plan) -> None:
        self.stream_id = stream_id
        self.window = window
        self.plan = plan
        self.sent_bytes = 0
        # In the connection's queue of streams that can send.
        self.is_queued = False
        self._left = plan.count
        self._message = prepared(plan.size)
        self._id = stream_id.to_bytes(4, "big")
        at = self._message.index(b'{"t":') + 5
        self._head, self._tail = self._message[:at], self._message[at + stamp.WIDTH :]
        self._frame = self._framed(self._message) if len(self._message) <= FRAME_LIMIT_BYTES else b""
        turn = max(1, TURN_BYTES // len(self._message))
        self._turn, self._turn_frames = turn, self._frame * turn
        # The rest of a message that a frame or the window has cut.
        self._rest = b""
        # The moments of paced chunks that are due.
        self._owed: deque[bytes] = deque(maxlen=OWED_LIMIT)
        self._final_sent = False

    @property
    def wants(self) -> bool:
        """Something is to be sent, windows permitting."""
        return bool(self._rest or self._owed) or self.wants_final or (self._left != 0 and not self.is_paced)

    @property
    def wants_final(self) -> bool:
        """Only the final chunk is left."""
        return not self._left and not self._owed and not self._rest and not self.plan.hold and not self._final_sent

    @property
    def finished(self) -> bool:
        """Everything was sent but the trailers."""
        return self._final_sent and not self._rest

    @property
    def is_paced(self) -> bool:
        return self.plan.interval_us > 0

    def tick(self) -> bool:
        """Make a paced chunk due; return whether more will come."""
        if self._left and len(self._owed) < OWED_LIMIT:
            self._left -= 1 if self._left != ENDLESS else 0
            self._owed.append(stamp.now())
        return self._left != 0

    def take(self, limit: int) -> tuple[bytes, int]:
        """Return frames of at most `limit` flow-controlled bytes, one turn's worth, and how many those are."""
        if self._rest:
            return self._cut(self._rest, limit)
        if self._owed:
            message = self._head + self._owed.popleft() + self._tail
        elif self._left:
            size = len(self._message)
            count = min(limit // size, self._turn) if self._left == ENDLESS else min(limit // size, self._turn, self._left)
            if count and self._frame:
                self._left -= count if self._left != ENDLESS else 0
                return (self._turn_frames if count == self._turn else self._frame * count), count * size
            self._left -= 1 if self._left != ENDLESS else 0
            message = self._message
        else:
            self._final_sent = True
            message = FINAL
        return self._cut(message, limit)

    def _cut(self, message: bytes, limit: int) -> tuple[bytes, int]:
        size = min(len(message), limit, FRAME_LIMIT_BYTES)
        self._rest = message[size:]
        return self._framed(message[:size]), size

    def _framed(self, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + b"\0\0" + self._id + payload
