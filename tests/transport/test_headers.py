"""Header blocks: requests as another decoder reads them, answers through the cache."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.frames import ErrorCode, PeerError
from gateway.transport.headers import NO_DYNAMIC_TABLE, AnswerHeaders, HeadersTooLarge, MetadataInvalid, RequestHeaders, check_metadata

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=300)
VALUES = st.text([chr(code) for code in range(32, 127)], max_size=300)


def stateless_encoder() -> hpack.Encoder:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder


@given(st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_any_metadata_is_read_back_as_it_was(metadata: list[tuple[str, str]]) -> None:
    check_metadata(metadata)
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0  # a peer that allows no table at all
    headers = RequestHeaders("https", "worker:443")
    for prefix in (NO_DYNAMIC_TABLE, b""):  # the second block of a method comes from the cache
        fields = decoder.decode(prefix + headers.block("/s/m", 1.0, metadata))
        assert fields[:4] == [(":path", "/s/m"), (":method", "POST"), (":scheme", "https"), (":authority", "worker:443")]
        assert fields[8:] == [("grpc-timeout", "1000000u"), *metadata]


@pytest.mark.parametrize("length", [126, 127, 128, 254, 255, 16_510, 16_511, 70_000])
def test_string_lengths_around_the_integer_prefixes_are_read_back(length: int) -> None:
    block = RequestHeaders("http", "a").block("/s/m", None, [("k", "v" * length)])
    assert hpack.Decoder(max_header_list_size=1 << 20).decode(block)[-1] == ("k", "v" * length)


@pytest.mark.parametrize("entry", [("A", ""), ("", ""), ("a b", ""), (":a", ""), ("a", "\r\n"), ("a", "\x7f"), ("a", "é"), ("a\n", "")])
def test_metadata_that_would_break_the_block_is_refused(entry: tuple[str, str]) -> None:
    with pytest.raises(MetadataInvalid):
        check_metadata([("good", "value"), entry])


def test_equal_blocks_are_decoded_once_when_the_peer_keeps_no_table() -> None:
    answers = AnswerHeaders()
    encoder = stateless_encoder()
    first = encoder.encode([("grpc-status", "0")])
    block = encoder.encode([("grpc-status", "0")])
    assert answers.decode(first) == {"grpc-status": "0"}
    assert answers.decode(block) is answers.decode(block)


def test_equal_blocks_of_a_peer_with_a_table_are_each_decoded() -> None:
    answers = AnswerHeaders()
    encoder = hpack.Encoder()
    blocks = [encoder.encode([("n", str(i))]) for i in (1, 2, 1, 2)]
    assert [answers.decode(block)["n"] for block in blocks] == ["1", "2", "1", "2"]
    reference = b"\xbe"  # "the newest entry of the table"
    assert answers.decode(reference) == {"n": "2"}
    answers.decode(hpack.Encoder().encode([("n", "3")]))
    assert answers.decode(reference) == {"n": "3"}


def test_cache_does_not_grow_without_bound() -> None:
    answers = AnswerHeaders()
    encoder = stateless_encoder()
    for i in range(1000):
        assert answers.decode(encoder.encode([("n", str(i))])) == {"n": str(i)}
    assert len(answers._cache) <= 64


def test_value_that_is_not_utf8_is_replaced() -> None:
    assert AnswerHeaders().decode(b"\x00\x01a\x01\xff") == {"a": "\ufffd"}


@pytest.mark.parametrize("block", [b"\xff\xff\xff\xff\xff\xff", b"\x00", b"\xfe", b"\x80", b"\x3f\xff\xff\x7f"])
def test_block_that_is_not_hpack_costs_the_connection(block: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        AnswerHeaders().decode(block)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_list_over_the_limit_costs_the_stream_without_a_table_and_the_connection_with_one() -> None:
    large = [("a", "x" * 300_000)] * 4
    without = AnswerHeaders()
    with pytest.raises(HeadersTooLarge):
        without.decode(stateless_encoder().encode(large, huffman=False))
    assert without.decode(stateless_encoder().encode([("b", "1")])) == {"b": "1"}
    with pytest.raises(PeerError):
        AnswerHeaders().decode(hpack.Encoder().encode(large, huffman=False))
