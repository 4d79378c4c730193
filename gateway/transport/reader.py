"""Frames out of reads that were cut at any byte.

Fed by connection.py. DATA goes straight into the streams' messages, part by part as it comes; header blocks are
put together from HEADERS and CONTINUATION; every other frame is handed to the connection whole. Bounded: what is
held is at most the beginning of one frame of MAX_FRAME_BYTES and one header block of BLOCK_LIMIT_BYTES.
Standard: RFC 9113 §4 and §6.1, §6.2, §6.10.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Generic

from gateway.transport.base import METADATA_LIMIT_BYTES
from gateway.transport.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HAS_PRIORITY,
    HEADER_BYTES,
    HEADERS,
    PADDED,
    SETTINGS,
    STREAM_ID_MASK,
    ErrorCode,
    PeerError,
    check,
    check_size,
)
from gateway.transport.messages import PREFIX_BYTES
from gateway.transport.streams import OpenStreams, S

# Large frames are fewer frames; a quarter of a window keeps one stream from holding up the others for long.
MAX_FRAME_BYTES = 1 << 18

# The most that the frames of one header block may take. Twice the limit of the list: what is only somewhat too large
# is then refused as such, for its stream alone.
BLOCK_LIMIT_BYTES = 2 * METADATA_LIMIT_BYTES

_SINGLE = Struct(">IBIBI")  # a frame header, and the prefix of the one message that fills the frame
_SINGLE_BYTES = HEADER_BYTES + PREFIX_BYTES


class FrameReader(Generic[S]):
    """Takes a connection's bytes apart."""

    def __init__(
        self,
        streams: OpenStreams[S],
        take_block: Callable[[int, bool, bytes], None],
        take_frame: Callable[[int, int, int, bytes], None],
        message_limit_bytes: int,
    ) -> None:
        """`take_block(stream_id, ends_stream, block)`; `take_frame(type, flags, stream_id, payload)` for all but DATA and headers."""
        self._streams = streams
        self._take_block = take_block
        self._take_frame = take_frame
        self._message_limit_bytes = message_limit_bytes
        self._single_limit_bytes = min(message_limit_bytes, MAX_FRAME_BYTES - PREFIX_BYTES)
        self._greeted = False
        # Cut off by the end of a read: the beginning of a frame that is taken whole, and what it needs …
        self._held = bytearray()
        self._held_needs = HEADER_BYTES
        # … or a DATA frame: its stream, the bytes to come, END_STREAM.
        self._data_stream_id = 0
        self._data_left = 0
        self._data_ends = False
        # A header block that CONTINUATION goes on with: its stream (0: none), END_STREAM, the bytes, and their cost with frame headers.
        self._block_stream_id = 0
        self._block_ends = False
        self._block = bytearray()
        self._block_cost = 0

    def feed(self, data: bytes) -> None:
        """Take what one read brought.

        Raises:
            PeerError: the peer broke the protocol. What came before has been taken; the reader can't be fed again.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._held_needs:
                return
            data = bytes(self._held)
            self._held = bytearray()
        at, end = 0, len(data)
        if self._data_left:
            at = self._read_data(data, 0, end)
        while True:
            if not self._block_stream_id:
                at = self._read_single_messages(data, at, end)
            start = at + HEADER_BYTES
            if start > end:
                self._hold(data, at, HEADER_BYTES)
                return
            word, flags, stream_id = FRAME_HEADER.unpack_from(data, at)
            stream_id &= STREAM_ID_MASK
            kind, length = word & 0xFF, word >> 8
            self._check_order(kind, flags, stream_id, length)
            if kind == DATA and not flags & PADDED:
                self._streams.check_known(stream_id)
                self._data_stream_id, self._data_left, self._data_ends = stream_id, length, bool(flags & END_STREAM)
                at = self._read_data(data, start, end)
                continue
            if start + length > end:
                self._hold(data, at, HEADER_BYTES + length)
                return
            at = start + length
            self._read_frame(kind, flags, stream_id, data[start:at])

    def _hold(self, data: bytes, at: int, needs: int) -> None:
        """Keep the beginning of a frame until the read that completes it."""
        self._held += memoryview(data)[at:]
        self._held_needs = needs

    def _check_order(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """Check what must hold before a frame is even looked at."""
        if not self._greeted:
            if kind != SETTINGS or flags & ACK:
                raise PeerError(ErrorCode.PROTOCOL_ERROR, "its first frame is not SETTINGS (does it speak HTTP/2 without an upgrade?)")
            self._greeted = True
        if length > MAX_FRAME_BYTES:
            raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes; the limit is {MAX_FRAME_BYTES}")
        if self._block_stream_id and (kind != CONTINUATION or stream_id != self._block_stream_id):
            raise PeerError(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted by another frame")

    # -- DATA ----------------------------------------------------------------------------------------------

    def _read_single_messages(self, data: bytes, at: int, end: int) -> int:
        """Take frames for as long as each is DATA without flags and holds exactly one message; return where they end.

        This is how gRPC servers send, so this is the hot loop: for each message one unpack and one slice, and
        the accounts are kept for each run of frames of one stream. Whatever is out of the ordinary is left to
        `feed`, which judges it anew.
        """
        unpack, limit_bytes, by_id = _SINGLE.unpack_from, self._single_limit_bytes, self._streams.by_id
        stream: S | None = None
        current_id = run_start = before = 0
        messages: list[bytes] = []
        last = end - _SINGLE_BYTES
        while at <= last:
            word, flags, stream_id, compressed, size = unpack(data, at)
            stop = at + _SINGLE_BYTES + size
            if word != (size + PREFIX_BYTES) << 8 or flags or compressed or stop > end or size > limit_bytes:
                break
            if stream_id != current_id:
                if stream is not None:
                    self._streams.account(stream, at - run_start - HEADER_BYTES * (len(messages) - before))
                stream = by_id.get(stream_id)
                if stream is None or not stream.at_border:
                    return at
                messages = self._streams.messages_of(stream)
                current_id, run_start, before = stream_id, at, len(messages)
            messages.append(data[at + _SINGLE_BYTES : stop])
            at = stop
        if stream is not None:
            self._streams.account(stream, at - run_start - HEADER_BYTES * (len(messages) - before))
        return at

    def _read_data(self, data: bytes, start: int, end: int) -> int:
        """Take as much of the DATA frame under way as this read holds; return where it ends."""
        stop = min(end, start + self._data_left)
        self._data_left -= stop - start
        self._take_data(self._data_stream_id, data, start, stop, stop - start)
        if not self._data_left and self._data_ends:
            self._end_of_data(self._data_stream_id)
        return stop

    def _take_data(self, stream_id: int, data: bytes, start: int, stop: int, window_bytes: int) -> None:
        """Take `data[start:stop]`, which with its padding took `window_bytes` of the windows."""
        stream = self._streams.by_id.get(stream_id)
        if stream is None:
            self._streams.account_unclaimed(window_bytes)
            return
        status = stream.take_data(data, start, stop, self._streams.messages_of(stream), self._message_limit_bytes)
        self._streams.account(stream, window_bytes)
        if status is not None:
            self._streams.end(stream, status, ErrorCode.CANCEL)

    def _end_of_data(self, stream_id: int) -> None:
        stream = self._streams.by_id.get(stream_id)
        if stream is not None:
            self._streams.end(stream, stream.end_without_trailers())

    # -- whole frames --------------------------------------------------------------------------------------

    def _read_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._read_headers(flags, stream_id, payload)
        elif kind == CONTINUATION:
            self._read_continuation(flags, payload)
        elif kind == DATA:
            self._streams.check_known(stream_id)
            start, stop = _unpadded(flags, payload)
            self._take_data(stream_id, payload, start, stop, len(payload))
            if flags & END_STREAM:
                self._end_of_data(stream_id)
        else:
            self._take_frame(kind, flags, stream_id, payload)

    def _read_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._streams.check_known(stream_id)
        start, stop = _unpadded(flags, payload)
        if flags & HAS_PRIORITY:
            start += 5
            check_size(start <= stop, "HEADERS")
        if flags & END_HEADERS:
            self._take_block(stream_id, bool(flags & END_STREAM), payload[start:stop])
            return
        self._block_stream_id, self._block_ends = stream_id, bool(flags & END_STREAM)
        self._block = bytearray(payload[start:stop])
        self._block_cost = len(payload)

    def _read_continuation(self, flags: int, payload: bytes) -> None:
        check(self._block_stream_id != 0, "CONTINUATION without HEADERS")
        self._block += payload
        self._block_cost += HEADER_BYTES + len(payload)  # a flood of empty frames must end, too (CVE-2024-27316)
        if self._block_cost > BLOCK_LIMIT_BYTES:
            raise PeerError(ErrorCode.ENHANCE_YOUR_CALM, f"a header block of over {BLOCK_LIMIT_BYTES} bytes")
        if flags & END_HEADERS:
            stream_id, self._block_stream_id = self._block_stream_id, 0
            block, self._block = bytes(self._block), bytearray()
            self._take_block(stream_id, self._block_ends, block)


def _unpadded(flags: int, payload: bytes) -> tuple[int, int]:
    """Return where the content of a DATA or HEADERS payload begins and ends."""
    if not flags & PADDED:
        return 0, len(payload)
    check_size(len(payload) > 0, "a padded frame")
    stop = len(payload) - payload[0]
    check(stop >= 1, "padding longer than its frame")
    return 1, stop
