"""gateway/codec/toolchunk.py against protobuf's own parser."""

from __future__ import annotations

from itertools import takewhile

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.toolchunk import end_mark, plain_payloads
from gateway.rpc.snakepit_bridge_pb2 import ToolChunk

plain = st.builds(ToolChunk, chunk_id=st.text(min_size=1, max_size=30), data=st.binary(min_size=1, max_size=400))
anything = st.builds(
    ToolChunk,
    chunk_id=st.text(max_size=200),
    data=st.binary(max_size=400),
    is_final=st.booleans(),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)


def is_plain(chunk: ToolChunk) -> bool:
    return 0 < len(chunk.chunk_id.encode()) < 128 and bool(chunk.data) and not chunk.is_final and not chunk.metadata


@given(st.lists(plain, min_size=1, max_size=8))
def test_plain_messages_give_their_data(chunks: list[ToolChunk]) -> None:
    assert plain_payloads([chunk.SerializeToString() for chunk in chunks]) == [chunk.data for chunk in chunks]


@given(st.lists(anything, min_size=1, max_size=8))
def test_messages_up_to_the_first_that_is_not_plain_give_their_data(chunks: list[ToolChunk]) -> None:
    plain_ones = list(takewhile(is_plain, chunks))
    assert plain_payloads([chunk.SerializeToString() for chunk in chunks]) == [chunk.data for chunk in plain_ones]


@given(st.binary(max_size=64))
def test_garbage_is_left_to_the_parser_or_is_a_message(garbage: bytes) -> None:
    payloads = plain_payloads([garbage])
    if payloads:
        id_length = garbage[1]
        assert garbage == bytes([10, id_length]) + garbage[2 : 2 + id_length] + garbage[2 + id_length : -len(payloads[0])] + payloads[0]


def test_large_data_with_a_length_of_several_bytes_is_read() -> None:
    for size in (127, 128, 16_383, 16_384, 70_000, 2_097_152):
        chunk = ToolChunk(chunk_id="t-1", data=b"x" * size)
        assert plain_payloads([chunk.SerializeToString()]) == [chunk.data]


def test_a_message_that_is_cut_anywhere_is_left_to_the_parser() -> None:
    message = ToolChunk(chunk_id="t-1", data=b"y" * 300).SerializeToString()
    for end in range(len(message)):
        assert plain_payloads([message[:end]]) == []


def test_empty_data_that_was_written_out_is_left_to_the_parser() -> None:
    assert plain_payloads([b"\n\x03t-1\x12\x00"]) == []


@given(st.lists(anything, min_size=1, max_size=3), st.data())
def test_a_damaged_message_is_read_as_protobuf_reads_it_or_left_to_it(chunks: list[ToolChunk], data: st.DataObject) -> None:
    wire = bytearray(b"".join(chunk.SerializeToString() for chunk in chunks))
    for _ in range(data.draw(st.integers(0, 2)) if wire else 0):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    message = bytes(wire[: data.draw(st.integers(0, len(wire)))])
    for payload in plain_payloads([message]):
        try:
            parsed = ToolChunk.FromString(message)
        except DecodeError:
            # The only thing that is not looked at: whether the id is UTF-8.
            message = message[:2] + b"x" * message[1] + message[2 + message[1] :]
            parsed = ToolChunk.FromString(message)
        assert (parsed.data, parsed.is_final, dict(parsed.metadata)) == (payload, False, {})


@given(st.one_of(st.builds(ToolChunk, chunk_id=st.text(max_size=130), is_final=st.booleans()), anything))
def test_an_end_mark_is_a_final_chunk_that_carries_nothing(chunk: ToolChunk) -> None:
    chunk_id = end_mark(chunk.SerializeToString())
    if chunk_id is not None:
        assert chunk == ToolChunk(chunk_id=chunk_id, is_final=True)
    else:
        # The parser's: it has more to say, or its id is long or none.
        assert not (
            chunk == ToolChunk(chunk_id=chunk.chunk_id, is_final=True) and chunk.chunk_id.isascii() and 0 < len(chunk.chunk_id) < 128
        )


@given(st.binary(max_size=64))
def test_garbage_is_an_end_mark_only_where_the_parser_says_so(garbage: bytes) -> None:
    chunk_id = end_mark(garbage)
    if chunk_id is not None:
        assert ToolChunk.FromString(garbage) == ToolChunk(chunk_id=chunk_id, is_final=True)
