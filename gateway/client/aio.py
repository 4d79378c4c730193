"""The client for programs with an event loop, asyncio's or trio's; what its methods do stands with those of client.py.

It carries out the same conversations (steps.py), on an httpx.AsyncClient.
"""

from __future__ import annotations

import contextlib
import ssl
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import anyio
import httpx

from gateway.client import exchanges, openings, requests
from gateway.client.connection import FAREWELL_S, address, answer_of, as_httpx, lost
from gateway.client.reading import End, Item, OnGap, Pulse, Reading
from gateway.client.requests import CallOptions, ReaderOptions, Request, RunOptions, StreamOptions
from gateway.client.resume import PATIENT, Resume
from gateway.client.steps import Answer, Ask, Close, Conversation, Deliver, Lost, Open, Read, Reply, Result, Step, Wait
from gateway.client.stream import RunState, StopStream, StreamState


class AsyncClient:
    """A gateway, for programs with an event loop; the same as `Client`, with `await` and `async for`.

    async with AsyncClient() as client:
        async for chunk in client.stream("train_with_progress", {"epochs": 5}):
            print(chunk)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        resume: Resume = PATIENT,
        verify: ssl.SSLContext | bool = True,
        proxy: str | None = None,
    ) -> None:
        self._address = address(url, key, verify, proxy)
        self._http = httpx.AsyncClient(**self._address.options())
        self._habits = openings.Habits(Pulse(), resume)

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return str(self._address.url)

    async def execute(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        pool: str | None = None,
        timeout: float | None = None,
        session_id: str | None = None,
    ) -> Any:
        """Execute a unary tool and return its result, as `Client.execute`; `timeout` is in milliseconds."""
        return await self.call(command, args, pool=pool, timeout_s=openings.seconds(timeout), session_id=session_id)

    async def execute_stream(
        self,
        command: str,
        args: Mapping[str, Any] | None,
        callback: Callable[[Any], object],
        *,
        pool: str | None = None,
        timeout: float | None = None,
        session_id: str | None = None,
    ) -> End | None:
        """Execute a streaming tool, as `Client.execute_stream`: the callback is a plain function; `timeout` is in milliseconds."""
        options = StreamOptions(pool=pool, timeout_s=openings.seconds(timeout), session_id=session_id)
        async with self.stream(command, args, **options) as stream:
            try:
                async for chunk in stream:
                    callback(chunk)
            except StopStream:
                return None
        return stream.end

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """Execute a unary tool and return its result, as `Client.call`. Cancelling the task cancels it."""
        return await self._carry_out(exchanges.called(tool, arguments, options))

    def stream(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_gap: OnGap = "raise",
        idempotency_key: str | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncStream:
        """Return a tool's stream, as `Client.stream`."""
        return AsyncStream(openings.stream(self._habits, tool, arguments, on_gap, idempotency_key, options), self._http)

    def attach(self, run: str, from_: str | int = "start", *, on_gap: OnGap = "raise", **options: Unpack[ReaderOptions]) -> AsyncStream:
        """Return the stream of a run that is there, as `Client.attach`."""
        return AsyncStream(openings.attach(self._habits, run, from_, on_gap, options), self._http)

    async def start(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncRun:
        """Start a run in the background, as `Client.start`."""
        document = await self._carry_out(exchanges.document(requests.start(tool, arguments, idempotency_key, options)))
        return AsyncRun(self, document)

    async def run(self, run_id: str) -> AsyncRun:
        """Return a run as it is now, as `Client.run`."""
        return AsyncRun(self, await self._carry_out(exchanges.document(requests.run(run_id))))

    async def cancel(self, run_id: str) -> AsyncRun:
        """End a run, and return it as it is then, as `Client.cancel`."""
        return AsyncRun(self, await self._carry_out(exchanges.document(requests.cancel(run_id))))

    async def runs(self, *, state: str | None = None, tool: str | None = None, limit: int | None = None) -> AsyncIterator[AsyncRun]:
        """Yield the runs that the gateway knows, newest first, as `Client.runs`."""
        line = AsyncLine(self._http)
        conversation = exchanges.runs(state=state, tool=tool, limit=limit)
        while (page := await line.advance(conversation)) is not None:
            for document in page:
                yield AsyncRun(self, document)

    async def live_runs(self, *, state: str | None = None, tool: str | None = None, limit: int = 20) -> dict[str, Any]:
        """Return a page of everybody's open runs, as `Client.live_runs`."""
        found: dict[str, Any] = await self._carry_out(exchanges.document(requests.live_runs(state=state, tool=tool, limit=limit)))
        return found

    async def tools(self) -> list[dict[str, Any]]:
        """Return the catalogue, as `Client.tools`."""
        found: list[dict[str, Any]] = await self._carry_out(exchanges.member(requests.tools(), "tools"))
        return found

    async def tool(self, name: str, *, pool: str | None = None) -> dict[str, Any]:
        """Return one tool of the catalogue, as `Client.tool`."""
        found: dict[str, Any] = await self._carry_out(exchanges.tool(name, pool))
        return found

    async def aclose(self) -> None:
        """Close the connections, those of open streams included. Idempotent."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncClient {self.url}>"

    async def _carry_out(self, conversation: Conversation[Result]) -> Result:
        line = AsyncLine(self._http)
        reply: Reply = None
        while True:
            try:
                step = conversation.send(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            reply = await line.perform(step)


class AsyncStream(StreamState):
    """A run as one reader has it, as `Stream`: for its chunks' values iterate over it, or over `events()`.

    Leaving a loop over it closes it as soon as the event loop gets to that; leaving an `async with` block, or a task that is cancelled
    in it, does so at once.
    """

    def __init__(self, reading: Reading, http: httpx.AsyncClient) -> None:
        super().__init__(reading)
        self._line = AsyncLine(http)

    async def open(self) -> Self:
        """Send the request, and return when the first event is here: `run_id` and `start` are known then. Idempotent."""
        if not self._is_open and not self._is_closed:
            self._is_open = True
            try:
                self._first = await self._line.advance(self._conversation) or ()
            except BaseException:
                await self.aclose()
                raise
        return self

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._each(self._values)

    def events(self) -> AsyncIterator[Any]:
        """Yield everything that is said: Start, Chunk, Status, Gap, End, a Start again after a cut."""
        return self._each(self._events)

    async def _each(self, parts_of: Callable[[Item], Iterator[Any]]) -> AsyncIterator[Any]:
        try:
            await self.open()
            items: Sequence[Item] | None = self._first
            self._first = ()
            while items is not None:
                for item in items:
                    for part in parts_of(item):
                        yield part
                items = await self._line.advance(self._conversation)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Leave the run. Idempotent; nothing is raised where the gateway can't be told; a cancellation waits for it."""
        if self._is_closed:
            return
        self._is_closed = True
        self._first = ()
        self._conversation.close()
        with anyio.move_on_after(2 * FAREWELL_S, shield=True):
            await self._line.close()
            if (farewell := self._reading.farewell()) is not None:
                self.is_cancelled = await self._line.say(farewell, FAREWELL_S)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._is_open and not self._is_closed:
            warnings.warn(
                f"stream {self.run_id} was never closed; it is read on until its client is", ResourceWarning, stacklevel=1, source=self
            )


class AsyncRun(RunState):
    """A run by its id, as `Run`."""

    def __init__(self, client: AsyncClient, document: Mapping[str, Any]) -> None:
        super().__init__(document)
        self._client = client

    async def refresh(self) -> Self:
        """Look at it again, as `Run.refresh`."""
        self.document = await self._client._carry_out(exchanges.document(requests.run(self.id)))
        return self

    async def cancel(self) -> Self:
        """End it, as `Run.cancel`."""
        self.document = await self._client._carry_out(exchanges.document(requests.cancel(self.id)))
        return self

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for its end and return its result, as `Run.result`."""
        return await self._client._carry_out(exchanges.result(self.id, timeout_s))

    def stream(self, from_: str | int = "start", *, on_gap: OnGap = "raise", **options: Unpack[ReaderOptions]) -> AsyncStream:
        """Return its stream, as `AsyncClient.attach`."""
        return self._client.attach(self.id, from_, on_gap=on_gap, **options)


class AsyncLine:
    """Carries out the steps of one conversation."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._parts: AsyncIterator[bytes] | None = None

    async def advance(self, conversation: Conversation[Any]) -> Sequence[Any] | None:
        """Return what a conversation delivers next; None when it is over."""
        reply: Reply = None
        while True:
            try:
                step = conversation.send(reply)
            except StopIteration:
                return None
            if isinstance(step, Deliver):
                return step.items
            reply = await self.perform(step)

    async def perform(self, step: Step) -> Reply:
        """Carry out one step."""
        if isinstance(step, Read):
            return await self._read()
        if isinstance(step, Open):
            return await self._open(step.request, step.silence_s)
        if isinstance(step, Ask):
            return await self._open(step.request, step.request.answer_s)
        if isinstance(step, Close):
            await self.close()
        elif isinstance(step, Wait):
            await anyio.sleep(step.seconds)
        return None

    async def close(self) -> None:
        """Be done with the open answer, if there is one."""
        response, self._response = self._response, None
        parts, self._parts = self._parts, None
        if isinstance(parts, AsyncGenerator):
            # Its end is ours to see to: the event loop would do it some time later.
            await parts.aclose()
        if response is not None:
            await response.aclose()

    async def say(self, request: Request, silence_s: float) -> bool:
        """Send a request; return whether it was heard, and done. No failure is raised, that of a client that is closed included."""
        try:
            response = await self._http.send(self._http.build_request(**as_httpx(request, silence_s)))
        except (httpx.RequestError, RuntimeError):
            return False
        return response.is_success

    async def _open(self, request: Request, silence_s: float) -> Answer | Lost:
        try:
            response = await self._http.send(self._http.build_request(**as_httpx(request, silence_s)), stream=True)
            answer = answer_of(response)
            if answer.is_stream:
                self._response, self._parts = response, response.aiter_bytes()
                return answer
            async with contextlib.aclosing(response):
                return answer._replace(body=await response.aread())
        except httpx.RequestError as exc:
            return lost(self._http.base_url, exc)

    async def _read(self) -> bytes | Lost:
        assert self._parts is not None
        try:
            return await anext(self._parts, b"")
        except httpx.RequestError as exc:
            return lost(self._http.base_url, exc)
