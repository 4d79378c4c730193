"""The upstream's ceiling: a client with boundless windows that drains one stream of it and only counts.

`python -m benchmarks.load.drain PORT COUNT SIZE` prints `{"messages": …, "seconds": …}`.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from hpack import Encoder

from benchmarks.load.counting import MarkCounter
from benchmarks.plan import Plan
from benchmarks.upstream.connection import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    OK_TRAILERS,
    PREFACE,
    SETTINGS,
    STREAM,
    WINDOW_UPDATE,
    frame,
)
from benchmarks.upstream.execution import CHUNK_ID, prefixed
from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest

LARGEST_WINDOW = 2**31 - 1
READ_BYTES = 1 << 20


def opening(plan: Plan) -> bytes:
    """Return a connection's first bytes: boundless windows and one call."""
    window = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + LARGEST_WINDOW.to_bytes(4, "big")
    fields = [(":method", "POST"), (":scheme", "http"), (":path", STREAM.decode()), (":authority", "bench"), ("te", "trailers")]
    block = Encoder().encode([*fields, ("content-type", "application/grpc")])
    texts = {name: str(value).lower() for name, value in plan.arguments().items()}
    request = prefixed(ExecuteToolRequest(tool_name="bench", metadata=texts).SerializeToString())
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, window)
        + frame(WINDOW_UPDATE, 0, 0, (LARGEST_WINDOW - 65535).to_bytes(4, "big"))
        + frame(HEADERS, END_HEADERS, 1, block)
        + frame(DATA, END_STREAM, 1, request)
    )


def drain(port: int, plan: Plan) -> tuple[int, float]:
    """Return how many messages one stream delivered, its final one included, and in how many seconds."""
    counter = MarkCounter(CHUNK_ID.encode())
    ending = frame(HEADERS, END_HEADERS | END_STREAM, 1, OK_TRAILERS)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(opening(plan))
        tail = b""
        while not tail.endswith(ending):
            data = sock.recv(READ_BYTES)
            if not data:
                raise ConnectionError(f"the upstream left after {counter.count} messages")
            counter.feed(data)
            tail = (tail + data)[-len(ending) :] if len(data) < len(ending) else data[-len(ending) :]
    return counter.count, time.perf_counter() - began


if __name__ == "__main__":
    messages, seconds = drain(int(sys.argv[1]), Plan(int(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps({"messages": messages, "seconds": seconds}))
