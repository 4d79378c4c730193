"""Adapters for the tests of local pools. Loaded by worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.tool import tool


class Tools(BaseAdapter):
    __thread_safe__ = True

    @tool(supports_streaming=True)
    def count(self, n: int) -> Iterator[dict[str, int]]:
        """Yield n numbers."""
        for i in range(n):
            yield {"i": i}

    @tool(supports_streaming=True)
    def until_file(self, path: str) -> Iterator[str]:
        """Yield once, then wait for a file, then yield again."""
        yield "started"
        while not os.path.exists(path) and not self.cancelled:
            time.sleep(0.01)
        yield "done"

    @tool(supports_streaming=True)
    def stubborn(self) -> Iterator[str]:
        """Yield once, then hear nothing."""
        yield "started"
        threading.Event().wait(600)

    @tool(supports_streaming=True)
    def child(self) -> Iterator[int]:
        """Start a process of its own and yield its id."""
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
            yield process.pid
            time.sleep(600)

    @tool()
    def pid(self) -> int:
        """Return the worker's process id."""
        return os.getpid()

    @tool()
    def environment(self) -> list[str]:
        """Return the names of the environment variables."""
        return sorted(os.environ)

    @tool()
    def fail(self) -> None:
        """Raise FileNotFoundError."""
        raise FileNotFoundError("no such model")


if os.environ.get("BREAK_THE_ADAPTER"):
    raise RuntimeError("weights are missing")
