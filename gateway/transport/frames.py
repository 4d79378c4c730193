"""HTTP/2 frames as bytes: the numbers of RFC 9113 and the writers of what a client sends.

Used by reader.py, which takes frames apart, and by connection.py, which writes them with these functions. No state, no I/O.

Layout of a frame (RFC 9113 §4.1): length (24 bits, of the payload alone), type (8), flags (8), stream id (31 and a
reserved bit), payload. Length and type are read here as one 32-bit word, `length << 8 | type`.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
STREAM_ID_MASK = 0x7FFF_FFFF
WINDOW_MAX = 0x7FFF_FFFF
# What RFC 9113 §6.5.2 has both sides assume before they have heard the other's SETTINGS.
DEFAULT_WINDOW_BYTES = 65_535
DEFAULT_MAX_FRAME_BYTES = 16_384

FRAME_HEADER = Struct(">IBI")
U32 = Struct(">I")
U16_U32 = Struct(">HI")
U32_PAIR = Struct(">II")


# Plain numbers and not enums: they are compared and masked for every frame, and an IntFlag's `&` alone costs a microsecond.
# Types (RFC 9113 §6); others are skipped, as §4.1 demands.
DATA = 0
HEADERS = 1
RST_STREAM = 3
SETTINGS = 4
PUSH_PROMISE = 5
PING = 6
GOAWAY = 7
WINDOW_UPDATE = 8
CONTINUATION = 9
# Flags. END_STREAM is for DATA and HEADERS, ACK for SETTINGS and PING.
NO_FLAGS = 0
END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20


class Setting(IntEnum):
    """RFC 9113 §6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class PeerError(Exception):
    """The peer broke the protocol in a way that costs the connection (RFC 9113 §5.4.1)."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def error_name(code: int) -> str:
    """Return an error code's name, or its number where it has none."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"error {code:#x}"


def frame(kind: int, flags: int, stream_id: int, payload: bytes | memoryview = b"") -> bytes:
    """Return one whole frame."""
    return b"".join((FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream_id), payload))


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, NO_FLAGS, 0, b"".join(U16_U32.pack(name, value) for name, value in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, NO_FLAGS, stream_id, U32.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    return frame(RST_STREAM, NO_FLAGS, stream_id, U32.pack(code))


def goaway(code: ErrorCode, message: str = "") -> bytes:
    """Return a client's GOAWAY; its last stream id is 0, since a server that may not push opens no streams."""
    return frame(GOAWAY, NO_FLAGS, 0, U32_PAIR.pack(0, code) + message.encode()[:256])


def header_block(stream_id: int, block: bytes, max_frame_bytes: int) -> bytes:
    """Return HEADERS, and CONTINUATION frames where `block` is larger than the peer's frame limit.

    END_STREAM is never set: a gRPC request has a message.
    """
    if len(block) <= max_frame_bytes:
        return frame(HEADERS, END_HEADERS, stream_id, block)
    parts = [block[at : at + max_frame_bytes] for at in range(0, len(block), max_frame_bytes)]
    first, *middle, last = parts
    return b"".join(
        (
            frame(HEADERS, NO_FLAGS, stream_id, first),
            *(frame(CONTINUATION, NO_FLAGS, stream_id, part) for part in middle),
            frame(CONTINUATION, END_HEADERS, stream_id, last),
        )
    )


def check(holds: bool, broken: str) -> None:
    """Raise PeerError (PROTOCOL_ERROR) unless `holds`."""
    if not holds:
        raise PeerError(ErrorCode.PROTOCOL_ERROR, broken)


def check_size(holds: bool, name: str) -> None:
    """Raise PeerError (FRAME_SIZE_ERROR) unless `holds`; `name` is the frame's."""
    if not holds:
        raise PeerError(ErrorCode.FRAME_SIZE_ERROR, f"{name} of a wrong size")
