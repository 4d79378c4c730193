"""Tools that answer with what they are told to: any text in any place, much output, broken files."""

import os
import sys

from gateway import BaseAdapter, StreamChunk, ToolError, tool


class OddAdapter(BaseAdapter):
    """See the module."""

    __thread_safe__ = True

    @tool(description="Yield this value", supports_streaming=True)
    def echo(self, value=None):
        yield value

    @tool(description="Return this value")
    def reply(self, value=None):
        return value

    @tool(description="Say this text as metadata", supports_streaming=True)
    def annotate(self, text: str):
        yield StreamChunk({"n": 1}, is_final=False, metadata={"note": text})
        yield StreamChunk({"n": 2}, is_final=True, metadata={"note": text})

    @tool(description="Fail with this text", supports_streaming=True)
    def fail(self, text: str, after: int = 0):
        for number in range(1, after + 1):
            yield {"n": number}
        raise ToolError("ABORTED", text, {"text": text})

    @tool(description="Fail with this text")
    def fail_once(self, text: str):
        raise ValueError(text)

    @tool(description="Print much, then count to three", supports_streaming=True)
    def chatter(self, lines: int = 20_000):
        for number in range(lines):
            sys.stdout.write(f"line {number} {'x' * 60}\n")
            sys.stderr.write(f"line {number}\n")
        for number in range(1, 4):
            yield {"n": number}

    @tool(description="Write to a device that is full", supports_streaming=True)
    def full(self):
        yield {"n": 1}
        with open("/dev/full", "w") as device:
            device.write("x")
            device.flush()
            os.fsync(device.fileno())
