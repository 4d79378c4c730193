"""Runs the host tools: at most so many at once, each within its time, and nothing that goes wrong in one is more than its own failure.

A function is a task or has a thread of its own. One that does not end in time is answered for: a task is cancelled, a thread
can't be, and keeps its place until it returns. Threads are daemons, so a stuck one does not hold the gateway's exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any as JsonValue

import structlog
from google.protobuf.any_pb2 import Any

from gateway.codec.signature import ArgumentsWrong
from gateway.hosttools.answering import answer_with, arguments_of, failure, no_such_tool
from gateway.hosttools.loading import HostTool, load
from gateway.rpc import snakepit_bridge_pb2 as pb

_log = structlog.get_logger("gateway.hosttools")

WAITING_LIMIT = 1000


class Toolbox:
    """The host tools of a gateway. `timeout_s` is a call's time, its waiting included; `at_once` bounds how many run."""

    def __init__(self, targets: Sequence[str], *, timeout_s: float = 30.0, at_once: int = 16) -> None:
        """Load the tools.

        Raises:
            HostToolsNotLoaded: see load.
        """
        self._tools: Mapping[str, HostTool] = load(targets)
        self._timeout_s = timeout_s
        self._at_once = at_once
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._tasks: set[asyncio.Task[JsonValue]] = set()

    def __len__(self) -> int:
        return len(self._tools)

    def prepare(self, targets: Sequence[str]) -> Callable[[], None]:
        """Load other tools, or the same ones anew, and return what puts them in place; may take its time, for a thread.

        Raises:
            HostToolsNotLoaded: see load. Nothing was changed.
        """
        tools = load(targets, again=True)

        def put() -> None:
            self._tools = tools

        return put

    def specs(self) -> Sequence[pb.ToolSpec]:
        """Return what there is."""
        return [tool.spec() for tool in self._tools.values()]

    async def execute(self, session_id: str, name: str, parameters: Mapping[str, Any]) -> pb.ExecuteElixirToolResponse:
        """Call one and return its answer, its failure included (`success` false). Never raises but for a cancellation.

        `parameters` are as a worker sends them: see arguments_of.
        """
        began = time.monotonic()
        tool = self._tools.get(name)
        if tool is None:
            return no_such_tool(name)
        try:
            positional, named = tool.parameters.bind(arguments_of(parameters))
        except ArgumentsWrong as exc:
            return failure(f"{name} does not take these arguments: {exc}")
        except Exception as exc:
            # What a validator of the function's own types raises.
            return failure(f"{name} does not take these arguments: {_said(exc)}")
        if self._waiting >= WAITING_LIMIT:
            return failure(f"{self._at_once} host tools run and {self._waiting} calls wait already")
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._take_place()
                result = await self._run(tool, positional, named)
        except TimeoutError:
            _log.warning("a host tool did not return in time", tool=name, session=session_id, timeout_s=self._timeout_s)
            return failure(f"TimeoutError: {name} did not return in {self._timeout_s:g} s", _since_ms(began))
        except _Raised as raised:
            _log.warning("a host tool failed", tool=name, session=session_id, error=raised.text)
            return failure(raised.text, _since_ms(began))
        return answer_with(result, _since_ms(began))

    async def aclose(self) -> None:
        """Cancel what runs as a task; threads are left to themselves."""
        for task in tuple(self._tasks):
            task.cancel()

    async def _take_place(self) -> None:
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1

    async def _run(self, tool: HostTool, positional: list[JsonValue], named: dict[str, JsonValue]) -> JsonValue:
        """Return what a function returns; the place that was taken for it is free when it has.

        Raises:
            _Raised: whatever it raised.
        """
        if tool.is_async:
            task = asyncio.get_running_loop().create_task(_awaited(tool, positional, named), name=f"host tool {tool.name}")
            self._tasks.add(task)
            task.add_done_callback(self._task_done)
            # Not the task itself: one that does not heed its cancellation must not make its caller wait.
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                task.cancel()
                raise
        return await self._on_thread(tool, positional, named)

    def _task_done(self, task: asyncio.Task[JsonValue]) -> None:
        self._tasks.discard(task)
        self._places.release()
        if not task.cancelled():
            # Seen here, where nobody waits for it any more.
            task.exception()

    async def _on_thread(self, tool: HostTool, positional: list[JsonValue], named: dict[str, JsonValue]) -> JsonValue:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[JsonValue] = loop.create_future()

        def settle(result: JsonValue, error: _Raised | None) -> None:
            self._places.release()
            if outcome.done():
                return
            if error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = tool.function(*positional, **named)
            except BaseException as exc:
                error = _Raised(_said(exc))
            # The loop may be gone: the gateway has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=work, name=f"host tool {tool.name}", daemon=True).start()
        except RuntimeError as exc:
            self._places.release()
            raise _Raised(f"no thread can be started for it: {exc}") from exc
        return await outcome


class _Raised(Exception):
    """A function has raised; `text` is the error's type and message."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


async def _awaited(tool: HostTool, positional: list[JsonValue], named: dict[str, JsonValue]) -> JsonValue:
    try:
        return await tool.function(*positional, **named)
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        raise _Raised("CancelledError: it was cancelled from within") from None
    except BaseException as exc:
        # SystemExit would end the event loop, and with it the gateway.
        raise _Raised(_said(exc)) from None


def _said(error: BaseException) -> str:
    """Return an error's type and message, and nothing of where it was raised."""
    try:
        text = str(error)
    except Exception:
        text = "its text can't be read"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _since_ms(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
