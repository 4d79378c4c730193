"""Tools whose chunks are numbered, so that what is missing, doubled or swapped is seen."""

import asyncio
import time

from gateway import BaseAdapter, tool


class SoakAdapter(BaseAdapter):
    """See the module."""

    __thread_safe__ = True

    @tool(description="Count as fast as possible", supports_streaming=True)
    def count(self, chunks: int):
        for number in range(1, chunks + 1):
            yield {"n": number}

    @tool(description="Count at a pace", supports_streaming=True)
    async def paced(self, chunks: int, interval_ms: float = 10):
        for number in range(1, chunks + 1):
            yield {"n": number}
            await asyncio.sleep(interval_ms / 1000)

    @tool(description="Count with a load", supports_streaming=True)
    def heavy(self, chunks: int, size: int = 16_000):
        filler = "x" * size
        for number in range(1, chunks + 1):
            yield {"n": number, "filler": filler}

    @tool(description="Count on a thread, for ever", supports_streaming=True)
    def endless(self):
        number = 0
        while not self.cancelled:
            number += 1
            yield {"n": number}
            time.sleep(0.01)

    @tool(description="Add")
    def add(self, a: int, b: int):
        return a + b
