from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.counting import MarkCounter

EVENTS = st.lists(st.sampled_from([b"data: 1\n\n", b"id: 2\ndata: {}\n\n", b"event: end\ndata: \n\n"]), max_size=20)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(borders)]


@given(events=EVENTS, cuts=st.lists(st.integers(min_value=0), max_size=30))
def test_marks_cut_anywhere_are_counted_once(events: list[bytes], cuts: list[int]) -> None:
    counter = MarkCounter(b"\n\n")
    for piece in pieces(b"".join(events), cuts):
        counter.feed(piece)
    assert counter.count == len(events)


@given(events=EVENTS, cuts=st.lists(st.integers(min_value=0), max_size=60))
def test_long_marks_cut_into_many_pieces_are_counted_once(events: list[bytes], cuts: list[int]) -> None:
    data = b"".join(event + b"bench-0" for event in events)
    counter = MarkCounter(b"bench-0")
    for piece in pieces(data, cuts):
        counter.feed(piece)
    assert counter.count == len(events)
