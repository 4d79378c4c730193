"""One call of a gRPC service's method on a socket of its own, whatever its kind: `GET /v1/rpc/{package.Service}/{Method}/ws`.

The frames are those of the subprotocol, without an `id`, since there is one run. What the client says:

    send     a request message, as JSON; the call of a method with one message begins with it
    end      there are no more (half-close); answers may go on coming. Not needed where there is one message
    cancel   stop the run
    credit   room for `n` more `next` frames, where `_credit` in the query has limited them
    ping     is answered with `pong`

The socket is closed 1000 after the terminal frame, `complete` or `error`. Closing it before that, however it comes, cancels the call:
only `end` is a half-close. Source: docs of the protocol, section 6.
"""

from __future__ import annotations

import asyncio

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway.caller import caller_of
from gateway.codec import websocket as codec
from gateway.codec.websocket import METHOD_FRAMES, BadFrame, ClientFrame, FrameEncoder
from gateway.endpoints.attachment import read_credit
from gateway.endpoints.duplex import AUTH_EXPIRED, Closing, Duplex, SocketSettings
from gateway.endpoints.options import CallOptions
from gateway.endpoints.outlet import SocketRun
from gateway.endpoints.plainsocket import DONE
from gateway.endpoints.rpcrequests import RPC_STARTING_OPTIONS, RpcReader
from gateway.endpoints.sending import Sending, message_of, rpc_call
from gateway.errors import CODES, GatewayError
from gateway.runs.policy import Cause, invalid_option
from gateway.services.tool import RpcTool

CREDIT = "_credit"


async def open_socket(websocket: WebSocket, rpcs: RpcReader, name: str, settings: SocketSettings) -> RpcSocket:
    """Return the socket of a method, its run begun where that needs no message.

    Raises:
        GatewayError: `rpc-not-found`, `invalid-option`, and what the hub refuses with.
    """
    plain, given = rpcs.calls.split_query(websocket.scope["query_string"])
    if plain:
        raise invalid_option(plain[0][0][:60], "stands in the query; the message is what a `send` frame says")
    credit = _credit([value for option, value in given if option == CREDIT])
    given = [pair for pair in given if pair[0] != CREDIT]
    tool = rpcs.find(name, given)
    options = rpcs.options(tool, given, None, names=RPC_STARTING_OPTIONS)
    socket = RpcSocket(websocket, rpcs, tool, options, credit, settings)
    await socket.prepare()
    return socket


class RpcSocket(Duplex):
    """One call. Its drain is the run's, as a PlainSocket's."""

    def __init__(
        self, websocket: WebSocket, rpcs: RpcReader, tool: RpcTool, options: CallOptions, credit: int | None, settings: SocketSettings
    ) -> None:
        super().__init__(websocket, settings)
        self._rpcs = rpcs
        self._tool = tool
        self._options = options
        self._credit = credit
        self._entry: SocketRun | None = None

    async def prepare(self) -> None:
        """Check the caller, and begin the run of a method that takes a stream of messages.

        Raises:
            GatewayError: what the hub refuses with.
        """
        limits = self._rpcs.calls.limits
        if self._tool.method.kind.client_streams:
            sending = Sending(self._tool, limits.depth, self._outlet.link)
            await self._start(b"", sending)
        else:
            scope = self._websocket.scope
            self._rpcs.calls.hub.check(rpc_call(self._tool, self._options, caller_of(scope), scope))

    def go_away(self, reconnect_in_ms: int) -> None:
        if self._entry is None:
            self.end()

    async def _listen(self) -> None:
        try:
            if self._entry is None:
                await self._begin()
            while True:
                await self._handle(await self._receive())
        except WebSocketDisconnect:
            pass
        except BadFrame as exc:
            self._closing = Closing(exc.close_code, exc.reason)

    async def _receive(self) -> ClientFrame:
        return codec.read_frame(await self._receive_text(), METHOD_FRAMES)

    async def _begin(self) -> None:
        """Wait for the one message of a method that takes no more, and call it."""
        try:
            async with asyncio.timeout(self._settings.init_timeout_s):
                while (frame := await self._receive()).type != "send":
                    if frame.type != "ping":
                        raise BadFrame(f"the first frame is a `send` with the message of {self._tool.name}, not {frame.type}")
                    self._outlet.say(codec.PONG)
        except TimeoutError:
            raise BadFrame("the message did not come in time", 4408) from None
        try:
            await self._start(message_of(self._tool, frame.message, self._rpcs.calls.limits.depth), None)
        except GatewayError as error:
            self._outlet.say(codec.error(None, error))
            self._closing = Closing(CODES[error.code].ws_close, error.detail)
            self._outlet.finish()

    async def _start(self, message: bytes, sending: Sending | None) -> None:
        scope = self._websocket.scope
        caller = caller_of(scope)
        feed = None if sending is None else sending.feed
        call = rpc_call(self._tool, self._options, caller, scope, message=message, feed=feed)
        run = await self._rpcs.calls.hub.start(call, self._options.policy)
        if sending is not None:
            sending.joined(run)
        encoder = FrameEncoder(run.id, None, debug=self._settings.debug)
        self._entry = self._outlet.attach(run, caller, encoder, self._options.reader, self._credit)
        self._entry.sending = sending

    async def _handle(self, frame: ClientFrame) -> None:
        entry = self._entry
        if frame.type == "ping":
            self._outlet.say(codec.PONG)
        elif entry is None or frame.type == "pong":
            # The call could not begin, and the error is under way; or nothing was asked.
            return
        elif frame.type == "credit":
            self._outlet.grant(entry, frame.n)
        elif frame.type == "cancel":
            entry.run.cancel(Cause.CLIENT)
        elif entry.sending is None:
            if frame.type == "send":
                raise BadFrame(f"{self._tool.name} takes one message")
        elif frame.type == "end":
            entry.sending.end()
        elif not await entry.sending.take(frame.message):
            raise WebSocketDisconnect(1006, "the client hung up")

    def _finished(self, entry: SocketRun) -> None:
        self._closing = AUTH_EXPIRED if entry.reader.expired else DONE
        self._outlet.drop(entry)
        self._outlet.finish()

    def _release(self) -> None:
        if self._entry is not None:
            if self._entry.sending is not None:
                self._entry.sending.abandon()
            self._entry.reader.close()


def _credit(given: list[str]) -> int | None:
    """Return the `_credit` of a query; None where delivery is not limited."""
    if not given:
        return None
    text = given[-1]
    return read_credit({"credit": int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else text})
