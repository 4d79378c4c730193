"""One call over grpcio's C core: the task that reads it, message by message, and how it ended.

Made and kept by grpcio.py, which tells its sink the end; grpcioduplex.py is one that also writes.
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
from gateway.transport.base import CallStatus, StreamSink

logger = logging.getLogger(__name__)

_STATE_LOOKS = 6
_STATE_LOOK_S = 0.01

_CODES: Mapping[grpc.StatusCode, Code] = {code: Code.from_wire(code.value[0]) for code in grpc.StatusCode}


class GrpcioCall:
    """base.StreamCall over one grpc.aio call."""

    __slots__ = ("_call", "_cancelled", "_channel", "_ended_as", "_headers", "_reading", "sink")

    def __init__(self, channel: grpc.aio.Channel, call: Any, sink: StreamSink) -> None:
        self.sink = sink
        self._channel = channel
        self._call = call
        self._cancelled = False
        self._headers: Mapping[str, str] = {}
        # How the call ends where it was ended here.
        self._ended_as = CallStatus(Code.CANCELLED, "cancelled")
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

    def fail(self, status: CallStatus) -> None:
        """End the call from this side, with another status than CANCELLED."""
        self._ended_as = status
        self.cancel()

    def close(self, status: CallStatus) -> None:
        """Tell the sink how the call ended."""
        self.sink.on_close(status)

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
            return self._ended_as
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
            return self._ended_as
        return CallStatus(code, exc.details() or "", None if details is None else from_base64(details), trailers, connection_lost=lost)

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


class RefusedCall:
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

    def headers(self) -> Mapping[str, str]:
        return {}

    def send(self, message: bytes) -> bool:
        return False

    def end_sending(self) -> None:
        pass

    def cancel(self) -> None:
        self._status = CallStatus(Code.CANCELLED, "cancelled")


def _as_text(metadata: Any) -> dict[str, str]:
    """Return the trailers as they were on the wire: binary ones as base64 text. The last of a repeated name wins."""
    return {
        name: base64.b64encode(value).rstrip(b"=").decode("ascii") if isinstance(value, bytes) else value for name, value in metadata or ()
    }


def from_base64(text: str) -> bytes:
    return base64.b64decode(text + "==")  # gRPC leaves the padding out; too much of it is ignored
