"""gRPC's length-prefixed messages, put together from pieces that were cut at any byte.

One assembler for each stream, fed by stream.py with the payloads of DATA frames. Whole messages are sliced out
where they lie; only one that is cut is copied into a buffer, which grows with what has arrived and never to
what the prefix merely promises.
Standard: gRPC over HTTP/2, "Length-Prefixed-Message": compressed flag (1 byte), length (4), message.
"""

from __future__ import annotations

from struct import Struct

from gateway.errors import Code

PREFIX_BYTES = 5
_PREFIX = Struct(">BI")


class MessageError(Exception):
    """A message that can't be taken; the stream ends with `code`."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class MessageAssembler:
    """Splits one stream's bytes into messages.

    | state       | `_partial`             | `_size`       |
    |-------------|------------------------|---------------|
    | at a border | empty                  | -1            |
    | in a prefix | 1 to 4 bytes of it     | -1            |
    | in a body   | what of it has arrived | its full size |
    """

    __slots__ = ("_limit_bytes", "_partial", "_size")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._partial = bytearray()
        self._size = -1

    @property
    def at_border(self) -> bool:
        """Whether every message begun is complete."""
        return self._size < 0 and not self._partial

    def feed(self, data: bytes, start: int, stop: int, messages: list[bytes]) -> None:
        """Take `data[start:stop]` and append each message that is now complete to `messages`.

        Raises:
            MessageError: INTERNAL for a compressed message (none was offered), RESOURCE_EXHAUSTED for one over
                the limit. Messages before it have been appended; the assembler can't be fed again.
        """
        if self._size >= 0:
            start = self._continue_body(data, start, stop, messages)
        elif self._partial:
            start = self._continue_prefix(data, start, stop, messages)
        while stop - start >= PREFIX_BYTES:
            compressed, size = _PREFIX.unpack_from(data, start)
            if compressed or size > self._limit_bytes:
                raise self._refusal(compressed, size)
            start += PREFIX_BYTES
            if stop - start < size:
                self._size = size
                self._partial += memoryview(data)[start:stop]
                return
            messages.append(data[start : start + size])
            start += size
        if start < stop:
            self._partial += data[start:stop]

    def _continue_body(self, data: bytes, start: int, stop: int, messages: list[bytes]) -> int:
        """Add to the message in `_partial`; return where the next one begins."""
        end = min(stop, start + self._size - len(self._partial))
        self._partial += memoryview(data)[start:end]
        if len(self._partial) == self._size:
            messages.append(bytes(self._partial))
            self._partial = bytearray()  # not clear(): it would keep the largest message's room for the stream's life
            self._size = -1
        return end

    def _continue_prefix(self, data: bytes, start: int, stop: int, messages: list[bytes]) -> int:
        """Add to the prefix in `_partial` and go on with its body; return where the next message begins."""
        end = min(stop, start + PREFIX_BYTES - len(self._partial))
        self._partial += data[start:end]
        if len(self._partial) < PREFIX_BYTES:
            return end
        compressed, size = _PREFIX.unpack(self._partial)
        if compressed or size > self._limit_bytes:
            raise self._refusal(compressed, size)
        self._partial = bytearray()
        self._size = size
        return self._continue_body(data, end, stop, messages)

    def _refusal(self, compressed: int, size: int) -> MessageError:
        if compressed:
            return MessageError(Code.INTERNAL, f"the worker sent a compressed message (flag {compressed}); only identity was offered")
        return MessageError(Code.RESOURCE_EXHAUSTED, f"the worker sent a message of {size} bytes; the limit is {self._limit_bytes}")
