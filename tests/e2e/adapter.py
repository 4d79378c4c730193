"""Tools for the end-to-end tests: they write down what happens to them, and go on when a test lets them.

Runs in worker processes. The directory named by the environment's E2E_DIRECTORY holds the journal (a JSON line
for each thing that happens to a tool) and the gates (a file that a tool waits for; the test makes it).
"""

import asyncio
import json
import os
import time
from pathlib import Path

from gateway import BaseAdapter, StreamChunk, tool

DIRECTORY = Path(os.environ["E2E_DIRECTORY"])


def note(tag: str, what: str) -> None:
    """Write a line into the journal; one small append is atomic."""
    line = json.dumps({"tag": tag, "what": what, "pid": os.getpid(), "at": time.monotonic()}) + "\n"
    with (DIRECTORY / "journal").open("a") as journal:
        journal.write(line)


def is_open(tag: str, gate: int) -> bool:
    return (DIRECTORY / f"{tag}.{gate}").exists()


class JournalAdapter(BaseAdapter):
    """Tools that say when they start, end and are cleaned up."""

    __thread_safe__ = True

    def __init__(self):
        super().__init__()
        self.tag = ""

    def cleanup(self):
        if self.tag:
            note(self.tag, "cleanup")

    def begin(self, tag: str) -> None:
        self.tag = tag
        note(tag, "start")

    @tool(description="Yield 1, and each next number when its gate is open", supports_streaming=True)
    def gated(self, tag: str, chunks: int = 3):
        self.begin(tag)
        try:
            for number in range(1, chunks + 1):
                while number > 1 and not is_open(tag, number) and not self.cancelled:
                    time.sleep(0.005)
                yield {"n": number, "pid": os.getpid()}
            note(tag, "done")
        finally:
            note(tag, "finally")

    @tool(description="Count up to a number as fast as possible", supports_streaming=True)
    def numbered(self, tag: str, count: int):
        self.begin(tag)
        for number in range(1, count + 1):
            yield {"stream": tag, "n": number}

    @tool(description="Count up to a number, not too fast", supports_streaming=True)
    async def paced(self, tag: str, count: int, interval_ms: float = 5):
        self.begin(tag)
        for number in range(1, count + 1):
            yield {"n": number}
            await asyncio.sleep(interval_ms / 1000)

    @tool(description="Count for ever", supports_streaming=True)
    def endless(self, tag: str, interval_ms: float = 5):
        self.begin(tag)
        number = 0
        try:
            while True:
                number += 1
                yield {"n": number}
                time.sleep(interval_ms / 1000)
        finally:
            note(tag, "finally")

    @tool(description="Count for ever on the event loop", supports_streaming=True)
    async def endless_async(self, tag: str, interval_ms: float = 5):
        self.begin(tag)
        number = 0
        try:
            while True:
                number += 1
                yield {"n": number}
                await asyncio.sleep(interval_ms / 1000)
        finally:
            note(tag, "finally")

    @tool(description="Never yield anything", supports_streaming=True)
    async def silent(self, tag: str):
        self.begin(tag)
        try:
            await asyncio.Event().wait()
            yield None
        finally:
            note(tag, "finally")

    @tool(description="Yield chunks of some size, as fast as they are taken", supports_streaming=True)
    def heavy(self, tag: str, chunks: int, size: int):
        self.begin(tag)
        filler = "x" * size
        try:
            for number in range(1, chunks + 1):
                yield {"n": number, "filler": filler}
        finally:
            note(tag, "finally")

    @tool(description="Count up to a number, but wait ahead of one for its gate", supports_streaming=True)
    def held(self, tag: str, count: int, gate: int):
        self.begin(tag)
        try:
            for number in range(1, count + 1):
                while number == gate and not is_open(tag, gate) and not self.cancelled:
                    time.sleep(0.005)
                yield {"n": number}
            note(tag, "done")
        finally:
            note(tag, "finally")

    @tool(description="Yield chunks of some size, noting each", supports_streaming=True)
    def noted(self, tag: str, chunks: int, size: int):
        self.begin(tag)
        filler = "x" * size
        for number in range(1, chunks + 1):
            note(tag, "yield")
            yield {"n": number, "filler": filler}

    @tool(description="Mark the last chunk, with metadata of its own", supports_streaming=True)
    def marked(self, count: int = 2):
        for number in range(1, count + 1):
            yield StreamChunk({"n": number}, is_final=number == count, metadata={"note": f"chunk {number}"})

    @tool(description="Say which process this is")
    def whoami(self):
        return {"pid": os.getpid(), "session": self.session_id}

    @tool(description="Wait for ever")
    async def wait(self, tag: str):
        self.begin(tag)
        try:
            await asyncio.Event().wait()
        finally:
            note(tag, "finally")
