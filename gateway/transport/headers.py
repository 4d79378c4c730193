"""Header blocks: requests encoded without state, answers decoded as seldom as possible.

Used by connection.py; `check_metadata` by both transports. Requests use no dynamic table: the static part of a
method's block is encoded once, what differs between calls is appended as literals, so nothing here depends on
the order of calls or on the peer's SETTINGS_HEADER_TABLE_SIZE. Answers: we announce a table size of 0. From
the moment the peer follows, a block means the same whenever it comes, and most blocks are equal byte for byte.
Standards: RFC 7541 (HPACK), gRPC over HTTP/2 "Requests".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hpack import Decoder, HPACKError, OversizedHeaderListError

from gateway.transport.base import METADATA_LIMIT_BYTES, Metadata
from gateway.transport.frames import ErrorCode, PeerError
from gateway.transport.status import format_timeout

# "Dynamic table size update" to 0 (RFC 7541 §6.3), due at the head of a connection's first block.
NO_DYNAMIC_TABLE = b"\x20"

_NAME = re.compile(r"[0-9a-z_.-]+")
_METHODS_CACHED = 256
_BLOCKS_CACHED = 64
_CACHED_BLOCK_BYTES = 1024


class MetadataInvalid(Exception):
    """A metadata name or value that HTTP/2 or gRPC does not allow."""


class HeadersTooLarge(Exception):
    """An answer's header list is over METADATA_LIMIT_BYTES; only its stream suffers."""


def check_metadata(metadata: Metadata) -> None:
    """Check that every name is lower-case ASCII and every value printable ASCII. Values of `-bin` names are base64 text.

    Raises:
        MetadataInvalid: naming the first entry that isn't.
    """
    for name, value in metadata:
        if not _NAME.fullmatch(name):
            raise MetadataInvalid(f"metadata name {name!r} is not valid: 0-9 a-z _ . - only")
        if not (value.isascii() and value.isprintable()):
            raise MetadataInvalid(f"the value of metadata {name!r} is not valid: printable ASCII only")


class RequestHeaders:
    """Encodes the header blocks of the calls to one authority."""

    __slots__ = ("_by_method", "_static")

    def __init__(self, scheme: str, authority: str) -> None:
        # Indices into RFC 7541's static table: 3 is ":method POST", 6 and 7 the schemes; 1 ":authority",
        # 31 "content-type" and 58 "user-agent" as names. An index of 15 or more takes a second byte.
        self._static = b"".join(
            (
                b"\x83\x87" if scheme == "https" else b"\x83\x86",
                b"\x01" + _string(authority),
                b"\x0f\x10" + _string("application/grpc"),
                b"\x0f\x2b" + _string("snakepit-gateway"),
                _literal("te", "trailers"),
                _literal("grpc-accept-encoding", "identity"),
            )
        )
        self._by_method: dict[str, bytes] = {}

    def block(self, method: str, timeout_s: float | None, metadata: Metadata) -> bytes:
        """Return the block for one call."""
        block = self._by_method.get(method)
        if block is None:
            # Pseudo-headers come first (RFC 9113 §8.3): 4 is the static index of ":path".
            block = b"\x04" + _string(method) + self._static
            if len(self._by_method) < _METHODS_CACHED:
                self._by_method[method] = block
        if timeout_s is not None:
            block += _literal("grpc-timeout", format_timeout(timeout_s))
        for name, value in metadata:
            block += _literal(name, value)
        return block


class AnswerHeaders:
    """Decodes one connection's header blocks.

    The cache holds at most 64 blocks of at most 1 KiB; when full it starts anew.
    """

    __slots__ = ("_cache", "_decoder")

    def __init__(self) -> None:
        # The decoder goes on accepting a table of 4096 bytes: a peer that never resizes its table is only slower.
        self._decoder = Decoder(max_header_list_size=METADATA_LIMIT_BYTES)
        self._cache: dict[bytes, Mapping[str, str]] = {}

    def decode(self, block: bytes) -> Mapping[str, str]:
        """Return a block's fields; of a repeated name the last. Every block of the connection must come by here, in order.

        Raises:
            HeadersTooLarge: the list is over the limit, and no later block depends on it.
            PeerError: COMPRESSION_ERROR for what isn't HPACK, and for a list over the limit that later blocks may need.
        """
        fields = self._cache.get(block)
        if fields is not None:
            return fields
        try:
            decoded = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError as exc:
            if self._decoder.header_table_size:
                raise PeerError(ErrorCode.COMPRESSION_ERROR, "a header list over the limit") from exc
            raise HeadersTooLarge(f"the worker sent a header list of over {METADATA_LIMIT_BYTES} bytes") from exc
        except HPACKError as exc:
            raise PeerError(ErrorCode.COMPRESSION_ERROR, f"a header block that is not HPACK: {exc}") from exc
        fields = {_text(name): _text(value) for name, value in decoded}
        if not self._decoder.header_table_size and len(block) <= _CACHED_BLOCK_BYTES:
            if len(self._cache) >= _BLOCKS_CACHED:
                self._cache.clear()
            self._cache[block] = fields
        return fields


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _literal(name: str, value: str) -> bytes:
    """Return a literal field without indexing and with a new name (RFC 7541 §6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    """Return a string literal without Huffman coding (RFC 7541 §5.2)."""
    data = text.encode("ascii")
    return _length(len(data)) + data


def _length(number: int) -> bytes:
    """Return an integer with a 7-bit prefix (RFC 7541 §5.1)."""
    if number < 0x7F:
        return _SMALL[number]
    encoded = bytearray(b"\x7f")
    number -= 0x7F
    while number >= 0x80:
        encoded.append(0x80 | number & 0x7F)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL: Final = [bytes((number,)) for number in range(0x7F)]
