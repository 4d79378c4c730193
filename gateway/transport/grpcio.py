"""A channel over grpcio's C core: the transport for setups where lane.py is not wanted.

Built by open_transport. One reader task for each call (grpciocall.py), and a writer for a duplex call (grpcioduplex.py), children of
the task group handed in; they move one message at a time, because that is how grpc.aio reads and writes. The invariant is base.py's:
one `on_close` for each call, however it ends. It comes from the reader task's done callback, which runs even where the task was
cancelled before its first step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
import grpc.aio

from gateway.errors import Code
from gateway.transport.base import (
    MESSAGE_LIMIT_BYTES,
    METADATA_LIMIT_BYTES,
    WINDOW_BYTES,
    CallStatus,
    DuplexCall,
    DuplexSink,
    Metadata,
    StreamSink,
    WireCall,
)
from gateway.transport.grpciocall import GrpcioCall, RefusedCall, from_base64
from gateway.transport.grpcioduplex import GrpcioDuplexCall
from gateway.transport.headers import MetadataInvalid, check_metadata
from gateway.transport.tls import TlsOptions
from gateway.transport.unary import call_unary

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
        self._writers: set[asyncio.Task[None]] = set()
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
            wire_metadata = self._checked(metadata)
            multicallable: Any = self._channel.unary_stream(method)
            call = GrpcioCall(self._channel, multicallable(request, timeout=timeout_s, metadata=wire_metadata), sink)
            self._start(call)
        except (_Refused, MetadataInvalid, ValueError) as exc:
            return _refused(sink, exc)
        return call

    def open_duplex(self, method: str, sink: DuplexSink, *, timeout_s: float | None = None, metadata: Metadata = ()) -> DuplexCall:
        """Do what base.Channel.open_duplex says."""
        try:
            wire_metadata = self._checked(metadata)
            multicallable: Any = self._channel.stream_stream(method)
            call = GrpcioDuplexCall(self._channel, multicallable(timeout=timeout_s, metadata=wire_metadata), sink)
            self._start(call)
        except (_Refused, MetadataInvalid, ValueError) as exc:
            return _refused(sink, exc)
        writer = self._tasks.create_task(call.write())
        self._writers.add(writer)
        writer.add_done_callback(self._writers.discard)
        return call

    def _checked(self, metadata: Metadata) -> list[tuple[str, str | bytes]]:
        """Return the metadata as grpc.aio takes it."""
        if self._closed:
            raise _Refused(Code.UNAVAILABLE, f"the channel to {self._address} is closed")
        check_metadata(metadata)
        return [(name, from_base64(value) if name.endswith("-bin") else value) for name, value in metadata]

    def _start(self, call: GrpcioCall) -> None:
        reading: Coroutine[Any, Any, CallStatus] = call.read()
        try:
            task = self._tasks.create_task(reading)
        except RuntimeError as exc:  # the task group is closing
            reading.close()
            call.cancel()
            raise _Refused(Code.UNAVAILABLE, "the gateway is shutting down") from exc
        self._calls[call] = task
        task.add_done_callback(lambda done: self._finish(call, done))

    def _finish(self, call: GrpcioCall, task: asyncio.Task[CallStatus]) -> None:
        del self._calls[call]
        if task.cancelled():
            call.cancel()
            call.close(CallStatus(Code.UNAVAILABLE, "the gateway is shutting down"))
        elif self._closed:
            call.close(CallStatus(Code.UNAVAILABLE, f"the channel to {self._address} was closed", connection_lost=True))
        else:
            call.close(task.result())

    async def unary(self, method: str, request: bytes, *, timeout_s: float, metadata: Metadata = ()) -> bytes:
        """Do what base.Channel.unary says."""
        return await call_unary(self, method, request, timeout_s=timeout_s, metadata=metadata)

    async def aclose(self) -> None:
        """Do what base.Channel.aclose says."""
        self._closed = True
        tasks = [*self._calls.values(), *self._writers]
        for call in list(self._calls):
            call.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._channel.close()


class _Refused(Exception):
    """A call that is not even started."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def _refused(sink: StreamSink, reason: Exception) -> RefusedCall:
    code = reason.code if isinstance(reason, _Refused) else Code.INTERNAL
    return RefusedCall(sink, CallStatus(code, str(reason)))
