"""The thread that one execution's synchronous code runs on.

A sync generator can only be closed by the thread that iterates it, and tools may hold thread-bound things
(database handles, event loops, CUDA contexts), so initialize, tool and cleanup share one, and nobody else uses it
meanwhile. A thread that has finished waits for the next execution, since making one costs more than a short tool.
Threads are daemons: a tool that never returns must not keep the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")
_Job = tuple[contextvars.Context, Callable[[], Any], "asyncio.Future[tuple[Any, BaseException | None]]"]


class ToolThreads:
    """Hands out threads, idle ones first. At most `idle_limit` wait; further ones end when they are given back."""

    def __init__(self, idle_limit: int) -> None:
        self._idle_limit = idle_limit
        self._idle: list[ToolThread] = []

    def take(self) -> ToolThread:
        """Return a thread that is the caller's until it is given back."""
        return self._idle.pop() if self._idle else ToolThread()

    def give_back(self, thread: ToolThread) -> None:
        """Take back a thread that has nothing left to do."""
        if len(self._idle) < self._idle_limit:
            self._idle.append(thread)
        else:
            thread.end()

    def end(self) -> None:
        """Let the idle threads end."""
        while self._idle:
            self._idle.pop().end()


class ToolThread:
    """Runs one job after another. The queue of jobs needs no bound: whoever hands one in waits for it."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="tool", daemon=True).start()

    async def run(self, job: Callable[[], Result], context: contextvars.Context) -> Result:
        """Run `job` in `context` and return its result or raise what it raised, SystemExit included.

        Must not be cancelled: the job could not be.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Result, BaseException | None]] = loop.create_future()
        self._jobs.put((context, job, answer))
        result, error = await answer
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Let the thread end after what it does now."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            context, job, answer = entry
            result = error = None
            try:
                result = context.run(job)
            except BaseException as raised:
                error = raised
            # The loop is closed only when the process ends under a tool that would not stop.
            with contextlib.suppress(RuntimeError):
                answer.get_loop().call_soon_threadsafe(answer.set_result, (result, error))
            # An idle thread holds on to nothing of the last execution.
            del entry, context, job, answer, result, error
