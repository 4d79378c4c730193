"""A channel over grpcio's C core: the transport for setups where lane.py is not wanted.

Built by open_transport. One reader task for each call, a child of the task group handed in; it moves one
message at a time, because that is how grpc.aio reads. The invariant is base.py's: one `on_close` for each
call, however it ends. It comes from the reader task's done callback, which runs even where the task was
cancelled before its first step.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from gateway.errors import Code
from gateway.transport.base import MESSAGE_LIMIT_BYTES, METADATA_LIMIT_BYTES, WINDOW_BYTES, CallStatus, Metadata, StreamSink, WireCall
from gateway.transport.headers import MetadataInvalid, check_metadata
from gateway.transport.tls import TlsOptions
from gateway.transport.unary import call_unary

logger = logging.getLogger(__name__)

# Without `use_local_subchannel_pool` two channels to one address share a connection, and closing one does not
# close it. BDP probing lets the core hold tens of MiB for each stalled stream; a fixed look-ahead does not.
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # A server by default calls more than one ping in five minutes abuse and hangs up.
    ("grpc.keepalive_time_ms", 320_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # how long one dial may take
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

_STATE_LOOKS = 6
_STATE_LOOK_S = 0.01

_CODES: Mapping[grpc.StatusCode, Code] = {code: Code.from_wire(code.value[0]) for code in grpc.StatusCode}


class GrpcioTransport:
    """Makes channels over the C core."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        """`tasks` becomes the parent of every call's reader; nothing that happens to a call fails the group."""
        self._tasks = tasks

    def connect(self, address: str, *, tls: TlsOptions | None = None) -> GrpcioChannel:
        """Return a channel to `address`; it dials at the first call. Must be called with the loop running.

        Raises:
            OSError: a certificate file can't be read.
        """
        if tls is None:
            return GrpcioChannel(address, grpc.aio.insecure_channel(address, options=OPTIONS), self._tasks)
        options = OPTIONS
        if tls.server_name is not None:
            options += (("grpc.ssl_target_name_override", tls.server_name), ("grpc.default_authority", tls.server_name))
        credentials = grpc.ssl_channel_credentials(
            root_certificates=tls.ca_file.read_bytes() if tls.ca_file else None,
            private_key=tls.key_file.read_bytes() if tls.key_file else None,
            certificate_chain=tls.certificate_file.read_bytes() if tls.certificate_file else None,
        )
        return GrpcioChannel(address, grpc.aio.secure_channel(address, credentials, options=options), self._tasks)


class GrpcioChannel:
    """base.Channel over one grpc.aio channel."""

    def __init__(self, address: str, channel: grpc.aio.Channel, tasks: asyncio.TaskGroup) -> None:
        self._address = address
        self._channel = channel
        self._tasks = tasks
        self._calls: dict[GrpcioCall, asyncio.Task[CallStatus]] = {}
        self._closed = False

    @property
    def address(self) -> str:
        return self._address

    @property
    def connections(self) -> int:
        # The core doesn't say.
        return 0

    @property
    def open_calls(self) -> int:
        """How many calls have not been told their end."""
        return len(self._calls)

    def open_stream(
        self,
        method: str,
        request: bytes,
        sink: StreamSink,
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
    ) -> WireCall:
        """Do what base.Channel.open_stream says."""
        try:
            if self._closed:
                raise _Refused(Code.UNAVAILABLE, f"the channel to {self._address} is closed")
            check_metadata(metadata)
            wire_metadata = [(name, _from_base64(value) if name.endswith("-bin") else value) for name, value in metadata]
            multicallable: Any = self._channel.unary_stream(method)
            call = GrpcioCall(self._channel, multicallable(request, timeout=timeout_s, metadata=wire_metadata), sink)
            try:
                self._start(call)
            except RuntimeError as exc:  # the task group is closing
                raise _Refused(Code.UNAVAILABLE, "the gateway is shutting down") from exc
        except (_Refused, MetadataInvalid, ValueError) as exc:
            code = exc.code if isinstance(exc, _Refused) else Code.INTERNAL
            return _RefusedCall(sink, CallStatus(code, str(exc)))
        return call

    def _start(self, call: GrpcioCall) -> None:
        reading = call.read()
        try:
            task = self._tasks.create_task(reading)
        except RuntimeError:
            reading.close()
            call.cancel()
            raise
        self._calls[call] = task
        task.add_done_callback(lambda done: self._finish(call, done))

    def _finish(self, call: GrpcioCall, task: asyncio.Task[CallStatus]) -> None:
        del self._calls[call]
        if task.cancelled():
            call.cancel()
            call.sink.on_close(CallStatus(Code.UNAVAILABLE, "the gateway is shutting down"))
        elif self._closed:
            call.sink.on_close(CallStatus(Code.UNAVAILABLE, f"the channel to {self._address} was closed", connection_lost=True))
        else:
            call.sink.on_close(task.result())

    async def unary(self, method: str, request: bytes, *, timeout_s: float, metadata: Metadata = ()) -> bytes:
        """Do what base.Channel.unary says."""
        return await call_unary(self, method, request, timeout_s=timeout_s, metadata=metadata)

    async def aclose(self) -> None:
        """Do what base.Channel.aclose says."""
        self._closed = True
        readers = list(self._calls.values())
        for call in list(self._calls):
            call.cancel()
        if readers:
            await asyncio.wait(readers)
        await self._channel.close()


class GrpcioCall:
    """base.StreamCall over one grpc.aio call."""

    __slots__ = ("_call", "_cancelled", "_channel", "_headers", "_reading", "sink")

    def __init__(self, channel: grpc.aio.Channel, call: Any, sink: StreamSink) -> None:
        self.sink = sink
        self._channel = channel
        self._call = call
        self._cancelled = False
        self._headers: Mapping[str, str] = {}
        self._reading = asyncio.Event()
        self._reading.set()
        # A paused reader must still learn that the call's deadline has passed.
        call.add_done_callback(lambda _: self._reading.set())

    def pause_reading(self) -> None:
        if not self._call.done():
            self._reading.clear()

    def resume_reading(self) -> None:
        self._reading.set()

    def cancel(self) -> None:
        self._cancelled = True
        self._reading.set()
        # The call, not the task that reads: the core leaks memory for each cancelled read (grpc/grpc#43360).
        self._call.cancel()

    async def read(self) -> CallStatus:
        """Deliver messages until the call is over and return how it ended. Never raises but for a cancelled task."""
        try:
            await self._deliver()
        except grpc.aio.AioRpcError as exc:
            return await self._failed(exc)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._cancelled or (task is not None and task.cancelling()):
                raise
            return CallStatus(Code.CANCELLED, "cancelled")
        except Exception as exc:
            logger.exception("a sink failed")
            return CallStatus(Code.INTERNAL, f"the reader failed: {exc}")
        finally:
            self._call.cancel()  # a call that is merely dropped is never collected (grpc/grpc#43462)
        return CallStatus(Code.OK, await self._call.details() or "", trailers=_as_text(await self._call.trailing_metadata()))

    def headers(self) -> Mapping[str, str]:
        return self._headers

    async def _deliver(self) -> None:
        self._headers = _as_text(await self._call.initial_metadata())
        read = self._call.read
        while True:
            if not self._reading.is_set():
                await self._reading.wait()
            message = await read()
            if message is grpc.aio.EOF:
                return
            if self._cancelled:
                raise asyncio.CancelledError
            self.sink.on_messages([message])

    async def _failed(self, exc: grpc.aio.AioRpcError) -> CallStatus:
        code = _CODES[exc.code()]
        trailers = _as_text(exc.trailing_metadata())
        details = trailers.pop("grpc-status-details-bin", None)
        lost = code is Code.UNAVAILABLE and await self._connection_lost()
        if self._cancelled:
            return CallStatus(Code.CANCELLED, "cancelled")
        return CallStatus(code, exc.details() or "", None if details is None else _from_base64(details), trailers, connection_lost=lost)

    async def _connection_lost(self) -> bool:
        """Tell a lost connection from a worker's own UNAVAILABLE.

        The core gives both the same status, but only the first takes the channel out of READY; on a busy machine
        a moment after the call has ended.
        """
        for _ in range(_STATE_LOOKS):
            if self._channel.get_state() is not grpc.ChannelConnectivity.READY:
                return True
            await asyncio.sleep(_STATE_LOOK_S)
        return False


class _Refused(Exception):
    """A call that is not even started."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class _RefusedCall:
    """The call handed out where none could be started: its sink hears so in the next turn of the loop."""

    __slots__ = ("_sink", "_status")

    def __init__(self, sink: StreamSink, status: CallStatus) -> None:
        self._sink = sink
        self._status = status
        asyncio.get_running_loop().call_soon(self._close)

    def _close(self) -> None:
        self._sink.on_close(self._status)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def cancel(self) -> None:
        self._status = CallStatus(Code.CANCELLED, "cancelled")

    def headers(self) -> Mapping[str, str]:
        return {}


def _as_text(metadata: Any) -> dict[str, str]:
    """Return the trailers as they were on the wire: binary ones as base64 text. The last of a repeated name wins."""
    return {
        name: base64.b64encode(value).rstrip(b"=").decode("ascii") if isinstance(value, bytes) else value for name, value in metadata or ()
    }


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text + "==")  # gRPC leaves the padding out; too much of it is ignored
