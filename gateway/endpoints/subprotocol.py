"""The subprotocol `snakepit.gateway.v1`: many runs on one socket, from `connection_init` to the close.

Frames are handled one at a time, each in a short synchronous step. A frame that breaks the protocol closes the socket
with the code that BadFrame names; what is wrong with a run, or with the payload that asks for it, is an `error` frame
under its id, and the socket goes on. An id is live until its terminal frame was sent, or until its client left. What comes for an
id that isn't live is old news and ignored. A run of a gRPC method that takes many messages is sent them by `send` and `end`; while it
has no room for them nothing is read (sending.py). Source: docs of the protocol, section 6.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from gateway import timers
from gateway.call import is_rpc
from gateway.caller import NOBODY, SCOPE_KEY, Caller, caller_of
from gateway.codec import websocket as codec
from gateway.codec.websocket import CREDIT_LIMIT, BadFrame, ClientFrame, FrameEncoder
from gateway.endpoints import arguments
from gateway.endpoints.attachment import Attachment, check_members, find_run, read_attach, read_credit
from gateway.endpoints.duplex import AUTH_EXPIRED, GOING_AWAY, Closing, Duplex, SocketSettings
from gateway.endpoints.options import META_PREFIX, STARTING_OPTIONS, CallOptions, read_options
from gateway.endpoints.outlet import SocketRun
from gateway.endpoints.requests import CallReader
from gateway.endpoints.rpcrequests import RPC_STARTING_OPTIONS, RpcReader
from gateway.endpoints.sending import Sending, message_of, rpc_call
from gateway.errors import CODES, FieldError, GatewayError
from gateway.runs.idempotency import Claim, claim
from gateway.runs.policy import Cause, ReaderOptions, invalid_option
from gateway.runs.source import RunSource

_OWN_MEMBERS = ("tool", "args", "credit", "idempotency_key")
SUBSCRIBE_MEMBERS = (*_OWN_MEMBERS, *(name.removeprefix("_") for name in STARTING_OPTIONS))


# Returns who comes with a first frame's token, or for None with the cookie in the socket's scope; raises GatewayError where it is no good.
CredentialCheck = Callable[[str | None, Any], Awaitable[Caller]]


class Socket(Duplex):
    """One connection of the subprotocol. `reader` reads the calls of its `subscribe` frames.

    `check` is asked who it is where its `connection_init` has a `token`, or its handshake has not said it; None: there is no
    authentication, and nobody looks at a token.
    """

    def __init__(self, websocket: WebSocket, reader: CallReader, settings: SocketSettings, check: CredentialCheck | None = None) -> None:
        super().__init__(websocket, settings, subprotocol=codec.SUBPROTOCOL)
        self._calls = reader
        self._rpcs = RpcReader(reader)
        self._check = check
        self._caller = caller_of(websocket.scope)
        # Ends the socket when its caller's credential has expired.
        self._expiry: timers.Timer | None = None
        self._runs: dict[str, SocketRun] = {}
        self._names: dict[SocketRun, str] = {}
        self._acknowledged = False
        # The client was told to go away, unless it hadn't even begun; or its time is over.
        self._leaving = False
        self._expired = False

    def go_away(self, reconnect_in_ms: int) -> None:
        self._leaving = True
        if self._acknowledged:
            try:
                self._outlet.say(codec.goaway(reconnect_in_ms))
            except BadFrame as exc:
                self._closing = Closing(exc.close_code, exc.reason)
                self.end()
        self._close_if_done()

    async def _listen(self) -> None:
        try:
            await self._initialise()
            while True:
                await self._handle(await self._receive())
        except WebSocketDisconnect:
            pass
        except BadFrame as exc:
            self._closing = Closing(exc.close_code, exc.reason)

    async def _receive(self) -> ClientFrame:
        return codec.read_frame(await self._receive_text())

    async def _initialise(self) -> None:
        try:
            async with asyncio.timeout(self._settings.init_timeout_s):
                frame = await self._receive()
                if frame.type != "connection_init":
                    raise BadFrame("the first frame is connection_init", 4401)
                await self._authenticate(frame.payload.get("token"))
        except TimeoutError:
            raise BadFrame("connection_init did not come in time", 4408) from None
        settings = self._settings
        limits = {"max_runs": settings.runs_limit, "max_credit": CREDIT_LIMIT, "heartbeat_ms": int(settings.heartbeat_s * 1000)}
        self._outlet.say(codec.ack(limits))
        self._acknowledged = True

    async def _authenticate(self, token: Any) -> None:
        """Find out whose socket this is, where the handshake hasn't said it, and end it with what it came with."""
        if self._check is None:
            return
        if token is not None or self._caller is NOBODY:
            try:
                caller = await self._check(token if token is None or isinstance(token, str) else "", self._websocket.scope)
            except GatewayError as error:
                raise BadFrame(error.detail, CODES[error.code].ws_close) from error
            if self._caller is not NOBODY and self._caller.id != caller.id:
                raise BadFrame("the token is another credential than that of the handshake", 4401)
            # The access log's line on this socket says it, too.
            self._caller = self._websocket.scope[SCOPE_KEY] = caller
        if self._caller.expires_at is not None:
            self._expiry = timers.running().call_later(self._caller.expires_at - time.time(), self._expire)

    def _expire(self) -> None:
        """Close behind the last words of the runs: their readers end at this moment, too."""
        self._closing = AUTH_EXPIRED
        self._leaving = self._expired = True
        self._close_if_done()

    async def _handle(self, frame: ClientFrame) -> None:
        if frame.type == "connection_init":
            raise BadFrame("connection_init came twice", 4429)
        if frame.type == "ping":
            self._outlet.say(codec.PONG)
        elif frame.type in ("subscribe", "attach"):
            await self._begin(frame)
        elif frame.id in self._runs:
            await self._handle_run(frame, self._runs[frame.id])

    async def _handle_run(self, frame: ClientFrame, entry: SocketRun) -> None:
        if frame.type == "credit":
            self._outlet.grant(entry, frame.n)
        elif frame.type in ("send", "end"):
            if entry.sending is None:
                raise BadFrame(f"{frame.type}: run {frame.id!r} takes no messages from here")
            if frame.type == "end":
                entry.sending.end()
            elif not await entry.sending.take(frame.message):
                raise WebSocketDisconnect(1006, "the client hung up")
        elif frame.type == "cancel":
            entry.run.cancel(Cause.CLIENT)
        else:
            # `complete`: the client wants no more of it; the run's policy says what that means.
            self._drop(entry)

    async def _begin(self, frame: ClientFrame) -> None:
        """Start a run, or join one, under the frame's id."""
        if frame.id in self._runs:
            raise BadFrame(f"id {frame.id!r} is in use by a live run", 4409)
        if len(self._runs) >= self._settings.runs_limit:
            raise BadFrame(f"more than {self._settings.runs_limit} runs on one socket", 4413)
        try:
            if self._expired:
                raise GatewayError("auth-expired", "This socket's credential has expired; connect again with a new one")
            if self._leaving:
                raise GatewayError("shutting-down", "This socket takes no new runs since its goaway; connect again", retry_after_s=5)
            if frame.type == "subscribe":
                await self._subscribe(frame.id, frame.payload)
            else:
                await self._attach(frame.id, read_attach(frame.payload, lag_bytes=self._settings.lag_bytes))
        except GatewayError as error:
            self._outlet.say(codec.error(frame.id, error))

    async def _subscribe(self, name: str, payload: Mapping[str, Any]) -> None:
        check_members("subscribe", payload, SUBSCRIBE_MEMBERS, META_PREFIX.removeprefix("_"))
        tool = payload.get("tool")
        if not isinstance(tool, str):
            raise GatewayError("invalid-option", "subscribe needs a `tool`: its name", errors=[FieldError("tool", "is required")])
        credit = read_credit(payload)
        given = ((option, value) for option, value in payload.items() if option not in _OWN_MEMBERS and value is not None)
        options = [(f"_{option}", _option_text(option, value)) for option, value in given]
        if is_rpc(tool):
            await self._subscribe_rpc(name, tool, payload, options, credit)
            return
        values = payload.get("args", {})
        if not isinstance(values, dict):
            raise GatewayError("invalid-option", "`args` is an object of arguments", errors=[FieldError("args", "must be an object")])
        arguments.check_depth(values, self._calls.limits.depth)
        checked = read_options(options, self._calls.limits.options, names=STARTING_OPTIONS)
        claimed = _claim(payload.get("idempotency_key"), self._caller, tool, values, checked)
        call = self._calls.call(tool, values, checked, self._caller, self._websocket.scope, streaming=True)
        self._join(name, await self._calls.hub.start(call, checked.policy, claimed), checked.reader, credit)

    async def _subscribe_rpc(
        self, name: str, method: str, payload: Mapping[str, Any], given: list[tuple[str, str]], credit: int | None
    ) -> None:
        """Call a method of a gRPC service: with the message in `args`, or with those of the `send` frames that follow."""
        tool = self._rpcs.find(method, given)
        options = self._rpcs.options(tool, given, None, names=RPC_STARTING_OPTIONS)
        key, sending, claimed = payload.get("idempotency_key"), None, None
        if tool.method.kind.client_streams:
            for member in ("args", "idempotency_key"):
                if payload.get(member) is not None:
                    raise invalid_option(member, f"has no meaning for {method}, which takes a stream of messages: `send` frames")
            sending = Sending(tool, self._calls.limits.depth, self._outlet.link)
            call = rpc_call(tool, options, self._caller, self._websocket.scope, feed=sending.feed)
        else:
            values = payload.get("args", {})
            message = message_of(tool, values, self._calls.limits.depth)
            claimed = _claim(key, self._caller, method, values, options, streaming=tool.method.kind.server_streams)
            call = rpc_call(tool, options, self._caller, self._websocket.scope, message=message)
        run = await self._calls.hub.start(call, options.policy, claimed)
        if sending is not None:
            sending.joined(run)
        self._join(name, run, options.reader, credit, sending)

    async def _attach(self, name: str, attachment: Attachment) -> None:
        if attachment.delivered:
            self._outlet.say(codec.delivered(name, attachment.run_id))
        else:
            run = await find_run(self._calls.hub, attachment.run_id, self._caller, resumes=attachment.resumes)
            self._join(name, run, attachment.options, attachment.credit)

    def _join(self, name: str, run: RunSource, options: ReaderOptions, credit: int | None, sending: Sending | None = None) -> None:
        entry = self._outlet.attach(run, self._caller, FrameEncoder(run.id, name, debug=self._settings.debug), options, credit)
        entry.sending = sending
        self._runs[name] = entry
        self._names[entry] = name

    def _finished(self, entry: SocketRun) -> None:
        self._drop(entry)

    def _drop(self, entry: SocketRun) -> None:
        """Send nothing more of a run, and leave it."""
        del self._runs[self._names.pop(entry)]
        self._outlet.drop(entry)
        if entry.sending is not None:
            entry.sending.abandon()
        entry.reader.close()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._leaving and not self._runs:
            self._closing = self._closing or GOING_AWAY
            self._outlet.finish()

    def _release(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        for entry in self._runs.values():
            if entry.sending is not None:
                entry.sending.abandon()
            entry.reader.close()


def _claim(key: Any, caller: Caller, tool: str, values: Any, options: CallOptions, *, streaming: bool = True) -> Claim | None:
    """Return what a `subscribe` that is sent again after a cut joins its run by; None without a key."""
    if key is None:
        return None
    if not isinstance(key, str):
        detail = "is a text of 1 to 255 printable ASCII characters"
        raise GatewayError("invalid-option", f"idempotency_key {detail}", errors=[FieldError("idempotency_key", detail)])
    return claim(key, caller, tool, values, options.given, streaming=streaming)


def _option_text(name: str, value: Any) -> str:
    """Return an option of a `subscribe` payload as the text that a query string would have."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise GatewayError("invalid-option", f"{name[:60]} is a text or a whole number", errors=[FieldError(name[:60], "has a wrong type")])
