"""Runs over WebSocket: the routes of `/v1/ws`, with the subprotocol, of the plain `/v1/tools/{tool}/ws`, and of one gRPC method's socket.

A socket is checked (its host and origin, the number of open sockets, what it asks for) and then served by a Socket (subprotocol.py),
a PlainSocket (plainsocket.py) or an RpcSocket (rpcsocket.py). A browser shows its page nothing of an HTTP error here, so all refusals but
that of a wrong host or origin are close frames. Source: docs of the protocol, section 6.
"""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.caller import caller_of
from gateway.codec import websocket as codec
from gateway.codec.websocket import SUBPROTOCOL, EventEncoder
from gateway.endpoints import arguments
from gateway.endpoints.attachment import find_run, read_event_id
from gateway.endpoints.duplex import Closing, SocketSettings
from gateway.endpoints.options import STARTING_OPTIONS, read_options
from gateway.endpoints.plainsocket import DONE, PlainSocket
from gateway.endpoints.problem import problem_response
from gateway.endpoints.requests import CallReader
from gateway.endpoints.rpcrequests import RpcReader
from gateway.endpoints.rpcsocket import open_socket
from gateway.endpoints.sockets import Sockets
from gateway.endpoints.subprotocol import CredentialCheck, Socket
from gateway.errors import CODES, GatewayError
from gateway.events import Ended, Outcome
from gateway.runs.policy import ReaderOptions
from gateway.runs.source import RunSource


def router(reader: CallReader, settings: SocketSettings, sockets: Sockets, check: CredentialCheck | None = None) -> APIRouter:
    """Return the routes of this module. `check` is asked who a socket of the subprotocol is; None: everybody may come in."""
    routes = APIRouter()
    rpcs = RpcReader(reader)

    async def many(websocket: WebSocket) -> None:
        if SUBPROTOCOL not in websocket.scope.get("subprotocols", []):
            await answer(websocket, Closing(4406, f"the subprotocol is {SUBPROTOCOL}"))
        elif (refusal := sockets.refusal()) is not None:
            await answer(websocket, refusal, subprotocol=SUBPROTOCOL)
        else:
            await sockets.serve(Socket(websocket, reader, settings, check))

    async def one(websocket: WebSocket, tool: str) -> None:
        refusal = sockets.refusal()
        if refusal is not None:
            await answer(websocket, refusal)
            return
        last_event_id = websocket.headers.get("last-event-id")
        try:
            if last_event_id:
                await resume(websocket, *read_event_id("Last-Event-ID", last_event_id))
                return
            run, reading = await start(websocket, tool)
        except GatewayError as error:
            await answer(websocket, Closing(CODES[error.code].ws_close, error.detail), codec.refused(error))
            return
        await sockets.serve(PlainSocket(websocket, run, reading, settings))

    async def method(websocket: WebSocket, service: str, method: str) -> None:
        refusal = sockets.refusal()
        if refusal is not None:
            await answer(websocket, refusal)
            return
        try:
            socket = await open_socket(websocket, rpcs, f"{service}/{method}", settings)
        except GatewayError as error:
            await answer(websocket, Closing(CODES[error.code].ws_close, error.detail), codec.error(None, error).encode())
            return
        await sockets.serve(socket)

    async def start(websocket: WebSocket, tool: str) -> tuple[RunSource, ReaderOptions]:
        plain, options = reader.split_query(websocket.scope["query_string"])
        checked = read_options(options, reader.limits.options, names=STARTING_OPTIONS)
        schema = reader.hub.catalog.find(tool, checked.pool).parameters
        values = arguments.from_query(plain, schema, depth_limit=reader.limits.depth)
        call = reader.call(tool, values, checked, caller_of(websocket.scope), websocket.scope, streaming=True)
        return await reader.hub.start(call, checked.policy), checked.reader

    async def resume(websocket: WebSocket, run_id: str, after: int | None) -> None:
        """Go on with a run as a reconnect over SSE does: the rest of it, nothing where all was delivered, `expired`."""
        if after is None:
            await answer(websocket, Closing(DONE.code, "everything was delivered"))
            return
        try:
            run = await find_run(reader.hub, run_id, caller_of(websocket.scope), resumes=True)
        except GatewayError as error:
            await answer(websocket, DONE, *EventEncoder(run_id).encode(Ended(Outcome.EXPIRED, 0, error=error)))
            return
        await sockets.serve(PlainSocket(websocket, run, ReaderOptions(after=after, lag_bytes=settings.lag_bytes), settings))

    routes.add_api_websocket_route("/v1/ws", many)
    routes.add_api_websocket_route("/v1/tools/{tool}/ws", one)
    routes.add_api_websocket_route("/v1/rpc/{service}/{method}/ws", method)
    return routes


_NOT_ACCEPTED = frozenset({"host-not-allowed", "origin-not-allowed", "invalid-request"})


async def refuse(websocket: WebSocket, error: GatewayError) -> None:
    """Refuse a socket that may not come in: by a close frame, which a page can read, with the code of the error.

    One for another host, or of a page that may not be here, is not even accepted.
    """
    if error.problem in _NOT_ACCEPTED:
        await websocket.send_denial_response(problem_response(error))
        return
    offered = websocket.scope.get("subprotocols", [])
    await answer(websocket, Closing(CODES[error.code].ws_close, error.detail), subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)


async def answer(websocket: WebSocket, closing: Closing, *messages: bytes, subprotocol: str | None = None) -> None:
    """Accept a socket, say what there is to say, and close it; a client that has left meanwhile hears nothing."""
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.accept(subprotocol)
        for message in messages:
            await websocket.send_text(message.decode())
        await websocket.close(closing.code, codec.close_reason(closing.reason))
