from __future__ import annotations

import pytest

from gateway.events import Chunks, Ended, Outcome, Timing
from gateway.value import Value


@pytest.mark.parametrize(
    ("value", "other", "is_equal"),
    [
        (Chunks(1, [b"1"], 9), Chunks(1, [b"1"], 9, None), True),
        (Chunks(1, [b"1"], 9), Chunks(1, [b"2"], 9), False),
        (Ended(Outcome.OK, 3, timing=Timing(1, None, 2)), Ended(Outcome.OK, 3, timing=Timing(1, None, 2)), True),
        (Ended(Outcome.OK, 3, timing=Timing(1, None, 2)), Ended(Outcome.OK, 3, timing=Timing(1, 1, 2)), False),
        (Timing(1, None, 2), (1, None, 2), False),
    ],
)
def test_values_are_equal_when_their_parts_are(value: Value, other: object, is_equal: bool) -> None:
    assert (value == other) is is_equal


def test_a_value_shows_its_parts_in_order() -> None:
    assert repr(Timing(1, None, 2)) == "Timing(queue_ms=1, first_chunk_ms=None, total_ms=2)"


def test_a_value_can_be_another_one_in_some_parts() -> None:
    assert Timing(1, None, 2).but(first_chunk_ms=2) == Timing(1, 2, 2)
