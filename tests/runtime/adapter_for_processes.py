"""The adapter that the process tests run; it notes what happened in the file named by $JOURNAL."""

import asyncio
import os
import sys
import time

from snakepit_bridge.base_adapter import BaseAdapter, tool


def note(line):
    with open(os.environ["JOURNAL"], "a") as journal:
        journal.write(f"{line}\n")


class Adapter(BaseAdapter):
    def cleanup(self):
        note("cleanup")

    @tool(supports_streaming=True)
    def count(self, n: int = 3, pause_s: float = 0.0):
        try:
            for i in range(n):
                yield i
                time.sleep(pause_s)
        finally:
            note("finally")

    @tool(supports_streaming=True)
    async def count_async(self, n: int = 3, pause_s: float = 0.0):
        try:
            for i in range(n):
                yield i
                await asyncio.sleep(pause_s)
        finally:
            note("finally")

    @tool(supports_streaming=True)
    def deaf(self):
        yield 1
        time.sleep(60)

    @tool(supports_streaming=True)
    async def blocks_the_loop(self):
        yield os.getpid()
        await asyncio.sleep(0.1)
        time.sleep(60)  # noqa: ASYNC251

    @tool(supports_streaming=True)
    def with_child(self):
        import subprocess

        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        while True:
            yield child.pid
            time.sleep(0.01)

    @tool()
    def exits(self):
        sys.exit(7)

    @tool()
    def identity(self):
        return {"pid": os.getpid(), "group": os.getpgrp(), "session": os.getsid(0)}

    @tool()
    def host_word(self, word: str):
        return self.session_context.call_elixir_tool("shout", word=word, times=2)

    @tool()
    def host_tools(self):
        return sorted(self.session_context.elixir_tools)


class Unsafe(BaseAdapter):
    @tool()
    def sync(self):
        return 1
