"""The message assembler alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Code
from gateway.transport.messages import MessageAssembler, MessageError


def framed(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big") + message


@given(st.lists(st.binary(max_size=30), max_size=8), st.lists(st.integers(1, 12), max_size=40), st.integers(0, 3))
def test_pieces_of_any_size_give_the_messages(messages: list[bytes], sizes: list[int], margin: int) -> None:
    wire = b"".join(map(framed, messages))
    assembler, taken, at = MessageAssembler(100), [], 0
    for size in [*sizes, len(wire)]:
        piece = wire[at : at + size]
        at += len(piece)
        padded = b"#" * margin + piece + b"#" * margin  # only what lies between the bounds counts
        assembler.feed(padded, margin, margin + len(piece), taken)
    assert taken == messages
    assert assembler.at_border


@pytest.mark.parametrize("cut", range(1, 8))
def test_message_cut_anywhere_is_not_at_a_border(cut: int) -> None:
    assembler, taken = MessageAssembler(100), []
    assembler.feed(framed(b"abc"), 0, cut, taken)
    assert not assembler.at_border
    assert taken == []


@pytest.mark.parametrize("cut", [5, 2])
@pytest.mark.parametrize(("prefix", "code"), [(b"\x01\x00\x00\x00\x01", Code.INTERNAL), (b"\x00\x00\x00\x00\x65", Code.RESOURCE_EXHAUSTED)])
def test_message_that_cannot_be_taken_raises_after_those_before_it(prefix: bytes, code: Code, cut: int) -> None:
    assembler, taken = MessageAssembler(100), []
    head, tail = framed(b"ok") + prefix[:cut], prefix[cut:]
    if tail:
        assembler.feed(head, 0, len(head), taken)
        head = tail
    with pytest.raises(MessageError) as caught:
        assembler.feed(head, 0, len(head), taken)
    assert caught.value.code is code
    assert taken == [b"ok"]


def test_message_of_exactly_the_limit_is_taken() -> None:
    assembler, taken = MessageAssembler(100), []
    assembler.feed(framed(bytes(100)), 0, 105, taken)
    assert taken == [bytes(100)]
