"""One execution of one tool, from the adapter's construction to the end of its cleanup.

Made by servicer.py, run as a task by executor.py. Sync code runs on a thread of its own (thread.py), async code
in the task; both put encoded chunks into the buffer that the servicer reads. The order is fixed: construct,
set_session_context, initialize, the tool, close its generator, cleanup; whatever happens on the way, cleanup
runs exactly once for every instance that was made, and `stopped` is set after it.

Cancelling is synchronous and only asks: the flag is set and the buffer closed, so a sync generator is closed at
its next yield; a coroutine that waits in the user's code gets CancelledError there, once. Cleanup is never cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from gateway.runtime import payload
from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.buffer import ChunkBuffer
from gateway.runtime.chunk import FinalMark
from gateway.runtime.failure import Failure, Refusal, WrongTool, describe
from gateway.runtime.session import SessionContext
from gateway.runtime.thread import ToolThread, ToolThreads
from gateway.runtime.tool import ToolSpec

logger = logging.getLogger(__name__)

# An async generator that never really waits gives the loop a turn this often, so that its chunks can leave.
_TURN_S = 0.001


class Execution:
    """One execution of `tool` on a new instance of `adapter`.

    `arguments` are checked and converted. `run_id` is the caller's name for it, or empty. With `streaming` the
    chunks are in `buffer`, else the result is in `result` (JSON) once `stopped` is set. `failure` is set before
    the buffer ends; it is None after a good end, and after a cancellation without a reason.
    """

    def __init__(
        self,
        adapter: type[Any],
        tool: ToolSpec,
        arguments: tuple[Sequence[Any], Mapping[str, Any]],
        context: SessionContext,
        *,
        run_id: str,
        streaming: bool,
    ) -> None:
        self.tool = tool
        self.run_id = run_id
        self.buffer = ChunkBuffer(asyncio.get_running_loop())
        self.result = b"null"
        self.failure: Failure | None = None
        self.stopped = asyncio.Event()
        self._adapter = adapter
        self._arguments = arguments
        self._context = context
        self._streaming = streaming
        self._instance: Any = None
        self._threads: ToolThreads
        self._thread: ToolThread | None = None
        self._variables: contextvars.Context
        self._interruption = _Interruption(context)

    @property
    def cancelled(self) -> bool:
        """cancel() was called before the end."""
        return self._context.cancelled

    def cancel(self, reason: Refusal | None = None) -> None:
        """Ask the tool to stop; on the loop, without an await. `reason` is what the caller is told, if it still listens.

        Harmless after the end and when repeated. `stopped` says when the tool has followed.
        """
        if self.cancelled or self.stopped.is_set():
            return
        self._context.cancelled = True
        if reason is not None:
            self.failure = self._describe(reason)
        self.buffer.close()
        self._interruption.interrupt()

    async def run(self, places: asyncio.Semaphore, threads: ToolThreads) -> None:
        """Live through the whole life, beginning when there is a place. Never raises, not even what a tool raises."""
        self._interruption.task = asyncio.current_task()
        self._context.origin.enter()
        self._threads = threads
        try:
            with self._interruption:
                await places.acquire()
        except asyncio.CancelledError:
            self._end()
            return
        try:
            await self._serve()
        except BaseException as error:
            # SystemExit and KeyboardInterrupt as well: a tool must not take the worker down.
            self._fail(error)
        try:
            await self._clean_up()
        except BaseException:
            logger.warning("cleanup() after tool %s failed", self.tool.name, exc_info=True)
        if self._thread is not None:
            threads.give_back(self._thread)
        places.release()
        self._end()

    def _end(self) -> None:
        self._instance = None
        self.stopped.set()
        self.buffer.finish()

    def _fail(self, error: BaseException) -> None:
        if not self.cancelled:
            self.failure = self._describe(error)
            logger.info("tool %s failed with %s: %s", self.tool.name, self.failure.code.name, error)
        elif not isinstance(error, asyncio.CancelledError):
            logger.info("tool %s raised %r while it was being cancelled", self.tool.name, error)

    def _describe(self, error: BaseException) -> Failure:
        return describe(error, tool=self.tool.name, session_id=self._context.session_id)

    async def _serve(self) -> None:
        """Construct, initialize and run the tool: a sync one in a single job on its thread where that is possible."""
        initialize_here = _is_async(_hook(self._adapter, "initialize"))
        if self.tool.is_async:
            self._construct()
        elif initialize_here:
            await self._on_thread(self._construct)
        else:
            await self._consume(await self._on_thread(self._live_on_thread))
            return
        with self._interruption:
            await self._call_hook("initialize")
        if self.cancelled:
            return
        # The tool's thread sees the context variables that an async initialize() has set.
        self._variables = contextvars.copy_context()
        await self._consume(self._call_tool() if self.tool.is_async else await self._on_thread(self._produce))

    def _construct(self) -> None:
        self._instance = self._adapter()
        if callable(take := getattr(self._instance, "set_session_context", None)):
            take(self._context)

    def _live_on_thread(self) -> Any:
        self._construct()
        if (initialize := _hook(self._instance, "initialize")) is not None:
            initialize()
        return None if self.cancelled else self._produce()

    def _call_tool(self) -> Any:
        positional, named = self._arguments
        return getattr(self._instance, self.tool.name)(*positional, **named)

    def _produce(self) -> Any:
        """Call the tool on its thread and use up what it returns; return it if that needs the loop, else None."""
        produced = self._call_tool()
        if inspect.isawaitable(produced) or hasattr(produced, "__anext__"):
            return produced
        self._use(produced)
        return None

    async def _consume(self, produced: Any) -> None:
        """Use up, on the loop, what the tool returned: a coroutine, an async iterator, or None for nothing."""
        if produced is None:
            return
        if inspect.isawaitable(produced):
            with self._interruption:
                produced = await produced
        if self.cancelled and not hasattr(produced, "__anext__"):
            return
        if not hasattr(produced, "__anext__"):
            await self._on_thread(functools.partial(self._use, produced)) if hasattr(produced, "__next__") else self._use(produced)
        elif self._streaming:
            await self._pump_async(produced)
        else:
            await _aclose(produced)
            self._contradict()

    def _use(self, produced: Any) -> None:
        """Stream an iterator, or keep a result."""
        if self._streaming and hasattr(produced, "__next__"):
            self._pump(produced)
        elif self._streaming:
            raise WrongTool(
                f"Tool {self.tool.name} is marked supports_streaming=True but returned {type(produced).__name__}, not a generator: "
                "use yield, or leave supports_streaming out"
            )
        elif inspect.isgenerator(produced):
            produced.close()
            self._contradict()
        else:
            self.result = payload.encode(produced)

    def _contradict(self) -> None:
        raise WrongTool(self.tool.contradiction or f"Tool {self.tool.name} returned a generator: write @tool(supports_streaming=True)")

    def _pump(self, iterator: Iterator[Any]) -> None:
        """Put a sync iterator's items into the buffer, on the thread; stop when nobody reads."""
        mark = FinalMark()
        pass_on, put = mark.pass_on, self.buffer.put
        try:
            for item in iterator:
                chunk = pass_on(item)
                if chunk is not None and not put(chunk):
                    return
            put(mark.final())
        except BaseException:
            if (held := mark.release()) is not None:
                put(held)
            raise
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                close()

    async def _pump_async(self, iterator: AsyncIterator[Any]) -> None:
        """Put an async iterator's items into the buffer; stop when nobody reads."""
        mark = FinalMark()
        put, clock = self.buffer.aput, asyncio.get_running_loop().time
        turn_s = clock()
        try:
            with self._interruption:
                async for item in iterator:
                    chunk = mark.pass_on(item)
                    if chunk is not None and not await put(chunk):
                        return
                    if clock() - turn_s > _TURN_S:
                        # Two turns: the end of the last write is seen in one, the next begins in the other.
                        await asyncio.sleep(0)
                        await asyncio.sleep(0)
                        turn_s = clock()
                await put(mark.final())
        except BaseException:
            if (held := mark.release()) is not None:
                await put(held)
            raise
        finally:
            await _aclose(iterator)

    async def _clean_up(self) -> None:
        if self._instance is not None:
            await self._call_hook("cleanup")

    async def _call_hook(self, name: str) -> None:
        """Call initialize or cleanup where it belongs, if the adapter defines it."""
        hook = _hook(self._instance, name)
        if hook is None:
            return
        outcome = hook() if _is_async(hook) else await self._on_thread(hook)
        if inspect.isawaitable(outcome):
            await outcome

    async def _on_thread(self, job: Callable[[], Any]) -> Any:
        if self._thread is None:
            self._thread = self._threads.take()
            self._variables = contextvars.copy_context()
        return await self._thread.run(job, self._variables)


class _Interruption:
    """Where the execution's task may be cancelled: inside `with`, and nowhere else. Not reentrant.

    Raises CancelledError on entry when the cancellation came before. On exit the task's count of cancellations is put
    back, so that time-outs and task groups in what follows work as usual.
    """

    def __init__(self, context: SessionContext) -> None:
        self.task: asyncio.Task[None] | None = None
        self._context = context
        self._inside = False
        self._cancelled = False

    def interrupt(self) -> None:
        if self._inside and self.task is not None:
            self._cancelled = self.task.cancel()

    def __enter__(self) -> None:
        if self._context.cancelled:
            raise asyncio.CancelledError
        self._inside = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inside = False
        if self._cancelled and self.task is not None:
            self.task.uncancel()
            self._cancelled = False


def _hook(adapter: Any, name: str) -> Callable[[], Any] | None:
    """Return a class's or an instance's initialize or cleanup; None where there is only BaseAdapter's empty one."""
    hook: Callable[[], Any] | None = getattr(adapter, name, None)
    return None if hook is None or getattr(hook, "__func__", hook) is getattr(BaseAdapter, name) else hook


def _is_async(hook: Callable[..., Any] | None) -> bool:
    return hook is not None and inspect.iscoroutinefunction(inspect.unwrap(hook))


async def _aclose(iterator: Any) -> None:
    if (close := getattr(iterator, "aclose", None)) is not None:
        await close()
