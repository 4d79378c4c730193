"""The client for programs without an event loop: each method blocks its thread. aio.py is the same for programs with one.

It carries out conversations (steps.py) on an httpx.Client, which any number of threads may share; every stream has a connection
of its own. What is said and decided stands in openings.py, reading.py and exchanges.py.
"""

from __future__ import annotations

import contextlib
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from gateway.client import exchanges, openings, requests
from gateway.client.connection import FAREWELL_S, address, answer_of, as_httpx, lost
from gateway.client.reading import End, Item, OnGap, Pulse, Reading
from gateway.client.requests import CallOptions, ReaderOptions, Request, RunOptions, StreamOptions
from gateway.client.resume import PATIENT, Resume
from gateway.client.steps import Answer, Ask, Close, Conversation, Deliver, Lost, Open, Read, Reply, Result, Step, Wait
from gateway.client.stream import RunState, StopStream, StreamState


class Client:
    """A gateway, for programs without an event loop.

    `url` and `key` default to the environment's GATEWAY_URL (else http://localhost:8000) and GATEWAY_KEY. `resume` bounds how a
    stream comes back after a cut. `verify` and `proxy` are httpx's. Threads may share it.

        with Client() as client:
            for chunk in client.stream("train_with_progress", {"epochs": 5}):
                print(chunk)

    Raises:
        ValueError: the URL is none of a gateway.
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
        self._http = httpx.Client(**self._address.options())
        self._habits = openings.Habits(Pulse(), resume)

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return str(self._address.url)

    def execute(
        self,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        pool: str | None = None,
        timeout: float | None = None,
        session_id: str | None = None,
    ) -> Any:
        """Execute a unary tool and return its result, as Snakepit.execute/3 does. `timeout` is in milliseconds, as there.

        Raises: as `call`.
        """
        return self.call(command, args, pool=pool, timeout_s=openings.seconds(timeout), session_id=session_id)

    def execute_stream(
        self,
        command: str,
        args: Mapping[str, Any] | None,
        callback: Callable[[Any], object],
        *,
        pool: str | None = None,
        timeout: float | None = None,
        session_id: str | None = None,
    ) -> End | None:
        """Execute a streaming tool, as Snakepit.execute_stream/4 does: `callback` gets each chunk, synchronously and in order.

        `timeout` is in milliseconds, as there. What the callback returns means nothing, as there; it stops the stream by raising
        StopStream. Any other exception of its comes out of here. In both cases the run is cancelled.

        Returns the end, or None where the callback has stopped it.

        Raises: as iterating over `stream`.
        """
        options = StreamOptions(pool=pool, timeout_s=openings.seconds(timeout), session_id=session_id)
        with self.stream(command, args, **options) as stream:
            try:
                for chunk in stream:
                    callback(chunk)
            except StopStream:
                return None
        return stream.end

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **options: Unpack[CallOptions]) -> Any:
        """Execute a unary tool and return its result. A cut, or leaving by an exception, cancels it.

        Raises:
            GatewayProblem: it can't be executed, or has failed.
            NotReachable: there was no answer.
            TypeError: an option is unknown, an argument has no form in JSON.
        """
        return self._carry_out(exchanges.called(tool, arguments, options))

    def stream(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_gap: OnGap = "raise",
        idempotency_key: str | None = None,
        **options: Unpack[StreamOptions],
    ) -> Stream:
        """Return a tool's stream; the tool is started when it is entered or iterated over. See `Stream`.

        Leaving it early cancels the run, a cut doesn't (openings.py), unless `on_disconnect` or an `idempotency_key` is given: then the
        policy alone decides. Two requests with the same key are one run. `on_gap="yield"` delivers a Gap where chunks are lost,
        which otherwise raises ChunksLost; with `overflow="latest"` that is what you want.

        Raises:
            TypeError: an option is unknown, an argument has no form in JSON.
        """
        return Stream(openings.stream(self._habits, tool, arguments, on_gap, idempotency_key, options), self._http)

    def attach(self, run: str, from_: str | int = "start", *, on_gap: OnGap = "raise", **options: Unpack[ReaderOptions]) -> Stream:
        """Return the stream of a run that is there, live or ended; leaving it is a disconnect, to which the run's policy applies.

        `run` is a run's id, or an event id (`Stream.last_event_id`), after which it goes on. `from_` is `start`, `live`, or the number of
        the last chunk that you have.

        Raises:
            TypeError: an option is unknown.
            ValueError: `from_` is no place.
        """
        return Stream(openings.attach(self._habits, run, from_, on_gap, options), self._http)

    def start(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Run:
        """Start a run in the background, of a tool of either kind. Raises as `call`."""
        return Run(self, self._carry_out(exchanges.document(requests.start(tool, arguments, idempotency_key, options))))

    def run(self, run_id: str) -> Run:
        """Return a run as it is now. Raises RunNotFound or RunExpired where it isn't known."""
        return Run(self, self._carry_out(exchanges.document(requests.run(run_id))))

    def cancel(self, run_id: str) -> Run:
        """End a run, and return it as it is then; one that has ended stays as it is. Raises RunNotFound or RunExpired."""
        return Run(self, self._carry_out(exchanges.document(requests.cancel(run_id))))

    def runs(self, *, state: str | None = None, tool: str | None = None, limit: int | None = None) -> Iterator[Run]:
        """Yield the runs that the gateway knows, newest first, at most `limit`; they are asked for in pages, as they are needed."""
        for page in self._parts(exchanges.runs(state=state, tool=tool, limit=limit)):
            for document in page:
                yield Run(self, document)

    def live_runs(self, *, state: str | None = None, tool: str | None = None, limit: int = 20) -> dict[str, Any]:
        """Return a page of everybody's open runs on this gateway, the newest, with their readers; `total` says how many there are.

        For operators: where there is authentication it takes the scope `admin`.
        """
        found: dict[str, Any] = self._carry_out(exchanges.document(requests.live_runs(state=state, tool=tool, limit=limit)))
        return found

    def tools(self) -> list[dict[str, Any]]:
        """Return the catalogue: each tool's name, description, `supports_streaming`, parameters as JSON Schema, pool."""
        found: list[dict[str, Any]] = self._carry_out(exchanges.member(requests.tools(), "tools"))
        return found

    def tool(self, name: str, *, pool: str | None = None) -> dict[str, Any]:
        """Return one tool of the catalogue. Raises ToolNotFound."""
        found: dict[str, Any] = self._carry_out(exchanges.tool(name, pool))
        return found

    def close(self) -> None:
        """Close the connections, those of open streams included. Idempotent."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.url}>"

    def _carry_out(self, conversation: Conversation[Result]) -> Result:
        line = Line(self._http)
        reply: Reply = None
        while True:
            try:
                step = conversation.send(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            reply = line.perform(step)

    def _parts(self, conversation: Conversation[None]) -> Iterator[Sequence[Any]]:
        line = Line(self._http)
        while (items := line.advance(conversation)) is not None:
            yield items


class Stream(StreamState):
    """A run as one reader has it: iterate over it for the chunks' values, or over `events()`.

        with client.stream("train", {"epochs": 5}) as stream:
            print(stream.run_id)
            for chunk in stream:
                ...
        print(stream.metadata["worker_id"])

    Leaving the loop, by `break` or an exception, closes the stream; so do the block's end and `close()`. A cut is mended behind the
    scenes. Iterating raises GatewayProblem (of the class that says what has happened), ChunksLost, StreamLost or NotReachable.
    """

    def __init__(self, reading: Reading, http: httpx.Client) -> None:
        super().__init__(reading)
        self._line = Line(http)

    def open(self) -> Self:
        """Send the request, and return when the first event is here: `run_id` and `start` are known then. Idempotent."""
        if not self._is_open and not self._is_closed:
            self._is_open = True
            try:
                self._first = self._line.advance(self._conversation) or ()
            except BaseException:
                self.close()
                raise
        return self

    def __iter__(self) -> Iterator[Any]:
        return self._each(self._values)

    def events(self) -> Iterator[Any]:
        """Yield everything that is said: Start, Chunk, Status, Gap, End, a Start again after a cut."""
        return self._each(self._events)

    def _each(self, parts_of: Callable[[Item], Iterator[Any]]) -> Iterator[Any]:
        try:
            self.open()
            items: Sequence[Item] | None = self._first
            self._first = ()
            while items is not None:
                for item in items:
                    yield from parts_of(item)
                items = self._line.advance(self._conversation)
        finally:
            self.close()

    def close(self) -> None:
        """Leave the run. Idempotent; nothing is raised where the gateway can't be told."""
        if self._is_closed:
            return
        self._is_closed = True
        self._first = ()
        self._conversation.close()
        self._line.close()
        if (farewell := self._reading.farewell()) is not None:
            self.is_cancelled = self._line.say(farewell, FAREWELL_S)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if self._is_open and not self._is_closed:
            warnings.warn(f"stream {self.run_id} was never closed; its connection is cut", ResourceWarning, stacklevel=1, source=self)
            self._line.close()


class Run(RunState):
    """A run by its id, as it was when it was last looked at: `state`, `tool`, `document`."""

    def __init__(self, client: Client, document: Mapping[str, Any]) -> None:
        super().__init__(document)
        self._client = client

    def refresh(self) -> Self:
        """Look at it again. Raises RunExpired where it is forgotten."""
        self.document = self._client._carry_out(exchanges.document(requests.run(self.id)))
        return self

    def cancel(self) -> Self:
        """End it; its state is the one after that. One that has ended stays as it is."""
        self.document = self._client._carry_out(exchanges.document(requests.cancel(self.id)))
        return self

    def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for its end and return its single result, or the list of a streaming tool's chunks.

        Raises:
            TimeoutError: it has not ended within `timeout_s`; it goes on.
            GatewayProblem: it has failed, or was cancelled.
        """
        return self._client._carry_out(exchanges.result(self.id, timeout_s))

    def stream(self, from_: str | int = "start", *, on_gap: OnGap = "raise", **options: Unpack[ReaderOptions]) -> Stream:
        """Return its stream, as `Client.attach`."""
        return self._client.attach(self.id, from_, on_gap=on_gap, **options)


class Line:
    """Carries out the steps of one conversation."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._response: httpx.Response | None = None
        self._parts: Iterator[bytes] = iter(())

    def advance(self, conversation: Conversation[Any]) -> Sequence[Any] | None:
        """Return what a conversation delivers next; None when it is over."""
        reply: Reply = None
        while True:
            try:
                step = conversation.send(reply)
            except StopIteration:
                return None
            if isinstance(step, Deliver):
                return step.items
            reply = self.perform(step)

    def perform(self, step: Step) -> Reply:
        """Carry out one step."""
        if isinstance(step, Read):
            return self._read()
        if isinstance(step, Open):
            return self._open(step.request, step.silence_s)
        if isinstance(step, Ask):
            return self._open(step.request, step.request.answer_s)
        if isinstance(step, Close):
            self.close()
        elif isinstance(step, Wait):
            time.sleep(step.seconds)
        return None

    def close(self) -> None:
        """Be done with the open answer, if there is one."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def say(self, request: Request, silence_s: float) -> bool:
        """Send a request; return whether it was heard, and done. No failure is raised, that of a client that is closed included."""
        try:
            response = self._http.send(self._http.build_request(**as_httpx(request, silence_s)))
        except (httpx.RequestError, RuntimeError):
            return False
        return response.is_success

    def _open(self, request: Request, silence_s: float) -> Answer | Lost:
        try:
            response = self._http.send(self._http.build_request(**as_httpx(request, silence_s)), stream=True)
            answer = answer_of(response)
            if answer.is_stream:
                self._response, self._parts = response, response.iter_bytes()
                return answer
            with contextlib.closing(response):
                return answer._replace(body=response.read())
        except httpx.RequestError as exc:
            return lost(self._http.base_url, exc)

    def _read(self) -> bytes | Lost:
        try:
            return next(self._parts, b"")
        except httpx.RequestError as exc:
            return lost(self._http.base_url, exc)
