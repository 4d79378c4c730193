"""Runs over WebSocket: `/v1/ws` with the subprotocol, many runs a socket, and the plain `/v1/tools/{tool}/ws`.

A socket has one task group: its reader handles client frames, its writer (outlet.py) sends what the runs have. A
run's error never closes the socket.
Source: docs of the protocol, section 6.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.codec import websocket as codec
from gateway.codec.websocket import SUBPROTOCOL, BadFrame, ClientFrame, EventEncoder, FrameEncoder
from gateway.endpoints import arguments
from gateway.endpoints.options import STARTING_OPTIONS, read_options
from gateway.endpoints.origin import OriginRule
from gateway.endpoints.outlet import Outlet, SocketRun
from gateway.endpoints.problem import problem_response
from gateway.endpoints.requests import CallReader
from gateway.errors import CODES, FieldError, GatewayError
from gateway.runs.policy import Cause, ReaderOptions
from gateway.runs.run import Run


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """`runs_limit`: runs at once on one socket. `init_timeout_s`: how long the first frame may take."""

    runs_limit: int = 100
    init_timeout_s: float = 5.0
    write_timeout_s: float = 30.0
    heartbeat_s: float = 10.0
    debug: bool = False


class Socket:
    """One connection of the subprotocol, from `connection_init` to its close."""

    def __init__(self, websocket: WebSocket, reader: CallReader, settings: SocketSettings) -> None:
        self._websocket = websocket
        self._calls = reader
        self._settings = settings
        self._outlet = Outlet(websocket, write_timeout_s=settings.write_timeout_s)
        self._runs: dict[str, SocketRun] = {}
        self._names: dict[SocketRun, str] = {}
        # What the client did wrong, or None: its close frame is sent when the writer has stopped.
        self._broken: BadFrame | None = None

    async def serve(self) -> None:
        """Serve until the client leaves or breaks the protocol; every run on the socket loses its reader then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(), name="websocket writer")
                reader = tasks.create_task(self._read(), name="websocket reader")
                await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
                writer.cancel()
                reader.cancel()
            if self._broken is not None:
                await self._outlet.close(self._broken.close_code, self._broken.reason)
        finally:
            for entry in self._runs.values():
                entry.reader.close()

    async def _write(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await self._outlet.run(self._finished)

    async def _read(self) -> None:
        try:
            await self._initialise()
            while True:
                self._handle(await self._receive())
        except WebSocketDisconnect:
            pass
        except BadFrame as exc:
            self._broken = exc

    async def _receive(self) -> ClientFrame:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        text = message.get("text")
        if text is None:
            raise BadFrame("frames are text")
        return codec.read_frame(text)

    async def _initialise(self) -> None:
        try:
            async with asyncio.timeout(self._settings.init_timeout_s):
                frame = await self._receive()
        except TimeoutError:
            raise BadFrame("connection_init did not come in time", 4408) from None
        if frame.type != "connection_init":
            raise BadFrame("the first frame is connection_init", 4401)
        settings = self._settings
        limits = {"max_runs": settings.runs_limit, "heartbeat_ms": int(settings.heartbeat_s * 1000)}
        self._outlet.say(codec.ack(limits))

    def _handle(self, frame: ClientFrame) -> None:
        if frame.type == "connection_init":
            raise BadFrame("connection_init came twice", 4429)
        if frame.type == "ping":
            self._outlet.say(codec.PONG)
        elif frame.type == "subscribe":
            self._subscribe(frame)
        elif frame.type == "complete":
            self._leave(frame.id)
        elif frame.type == "cancel" and frame.id in self._runs:
            self._runs[frame.id].run.cancel(Cause.CLIENT)

    def _subscribe(self, frame: ClientFrame) -> None:
        if frame.id in self._runs:
            raise BadFrame(f"id {frame.id!r} is in use by a live run", 4409)
        if len(self._runs) >= self._settings.runs_limit:
            raise BadFrame(f"more than {self._settings.runs_limit} runs on one socket", 4413)
        try:
            run, options = self._open(frame.payload)
        except GatewayError as error:
            self._outlet.say(codec.error(frame.id, error))
            return
        entry = self._outlet.attach(run, FrameEncoder(run.id, frame.id, debug=self._settings.debug), options)
        self._runs[frame.id] = entry
        self._names[entry] = frame.id

    def _open(self, payload: Mapping[str, Any]) -> tuple[Run, ReaderOptions]:
        tool = payload.get("tool")
        if not isinstance(tool, str):
            raise GatewayError("invalid-option", "subscribe needs a `tool`: its name", errors=[FieldError("tool", "is required")])
        values = payload.get("args", {})
        if not isinstance(values, dict):
            raise GatewayError("invalid-option", "`args` is an object of arguments", errors=[FieldError("args", "must be an object")])
        arguments.check_depth(values, str(values).encode(), self._calls.limits.depth)
        options = [(f"_{name}", _option_text(name, value)) for name, value in payload.items() if name not in ("tool", "args")]
        checked = read_options(options, self._calls.limits.options, names=STARTING_OPTIONS)
        call = self._calls.call(tool, values, checked, streaming=True)
        return self._calls.hub.open(call, checked.policy), checked.reader

    def _leave(self, name: str) -> None:
        """The client wants no more of a run; the run's policy says what that means. An id of no run is old news."""
        entry = self._runs.get(name)
        if entry is not None:
            self._forget(entry)
            entry.reader.close()

    def _finished(self, entry: SocketRun) -> None:
        self._forget(entry)
        entry.reader.close()

    def _forget(self, entry: SocketRun) -> None:
        del self._runs[self._names.pop(entry)]
        self._outlet.drop(entry)


class PlainSocket:
    """One run on a socket without a subprotocol: the SSE events as objects; the socket closes after `end`."""

    def __init__(self, websocket: WebSocket, run: Run, options: ReaderOptions, settings: SocketSettings) -> None:
        self._websocket = websocket
        self._outlet = Outlet(websocket, write_timeout_s=settings.write_timeout_s)
        self._entry = self._outlet.attach(run, EventEncoder(run.id, debug=settings.debug), options)
        self._done = asyncio.Event()

    async def serve(self) -> None:
        """Send the run's events until its end, or until the client closes: a disconnect."""
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [tasks.create_task(step) for step in (self._write(), self._watch(), self._done_wait())]
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in parts:
                    part.cancel()
            if self._done.is_set():
                await self._outlet.close(1000)
        finally:
            self._entry.reader.close()

    async def _write(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await self._outlet.run(self._finished)

    async def _watch(self) -> None:
        # What a client says on this socket has no meaning; only its leaving has.
        while (await self._websocket.receive())["type"] != "websocket.disconnect":
            pass

    async def _done_wait(self) -> None:
        await self._done.wait()

    def _finished(self, entry: SocketRun) -> None:
        self._outlet.drop(entry)
        self._done.set()


def router(reader: CallReader, settings: SocketSettings, origins: OriginRule) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter()

    async def many(websocket: WebSocket) -> None:
        if not await admitted(websocket):
            return
        if SUBPROTOCOL not in websocket.scope.get("subprotocols", []):
            await websocket.accept()
            await websocket.close(4406, f"the subprotocol is {SUBPROTOCOL}")
            return
        await websocket.accept(SUBPROTOCOL)
        await Socket(websocket, reader, settings).serve()

    async def one(websocket: WebSocket, tool: str) -> None:
        if not await admitted(websocket):
            return
        try:
            plain, options = reader.split_query(websocket)
            checked = read_options(options, reader.limits.options, names=STARTING_OPTIONS)
            schema = reader.hub.catalog.find(tool, checked.pool).parameters
            values = arguments.from_query(plain, schema, depth_limit=reader.limits.depth)
            run = reader.hub.open(reader.call(tool, values, checked, streaming=True), checked.policy)
        except GatewayError as error:
            await websocket.accept()
            await websocket.send_text(codec.refused(error))
            await websocket.close(CODES[error.code].ws_close, codec.close_reason(error.detail))
            return
        try:
            await websocket.accept()
        except BaseException:
            run.cancel(Cause.DISCONNECT)
            raise
        await PlainSocket(websocket, run, checked.reader, settings).serve()

    async def admitted(websocket: WebSocket) -> bool:
        try:
            origins.check(websocket.headers)
        except GatewayError as error:
            await websocket.send_denial_response(problem_response(error))
            return False
        return True

    routes.add_api_websocket_route("/v1/ws", many)
    routes.add_api_websocket_route("/v1/tools/{tool}/ws", one)
    return routes


def _option_text(name: str, value: Any) -> str:
    """Return an option of a `subscribe` payload as the text that a query string would have."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise GatewayError("invalid-option", f"{name[:60]} is a text or a whole number", errors=[FieldError(name[:60], "has a wrong type")])
