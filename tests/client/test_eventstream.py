from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client import eventstream
from gateway.client.eventstream import Batch, Event, EventStreamDecoder, EventTooLarge
from gateway.codec.sse import HEARTBEAT, SseEncoder
from gateway.events import Chunks, Ended, Gap, Outcome, Started, Status
from tests.codec.eventsource import EventSource

RUN = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"
THREE = b"".join(b"id: %b.%d\ndata: %d\n\n" % (RUN.encode(), n, n) for n in (1, 2, 3))


def feed(*parts: bytes) -> list[Event | Batch]:
    decoder = EventStreamDecoder()
    return [event for part in parts for event in decoder.feed(part)]


def dispatched(events: list[Event | Batch]) -> list[Event]:
    """Each event by itself, whether or not it came in a batch."""
    singles: list[Event] = []
    for event in events:
        if isinstance(event, Batch):
            singles += [Event("message", data, f"{event.ids}{n}") for n, data in enumerate(event.payloads, event.first)]
        else:
            singles.append(event)
    return singles


def is_standard(events: list[Event], text: bytes) -> bool:
    """Whether a page would see these. An id of an event's own is the page's last event id; without one the page has an earlier one's."""
    source = EventSource()
    source.feed(text)
    return len(events) == len(source.messages) and all(
        (ours.name, ours.data.decode("utf-8", "replace"), ours.id)
        in ((page.event, page.data, page.last_event_id), (page.event, page.data, None))
        for ours, page in zip(events, source.messages, strict=True)
    )


def test_chunks_alone_are_one_batch() -> None:
    assert feed(THREE) == [Batch(f"{RUN}.", 1, [b"1", b"2", b"3"])]


@pytest.mark.parametrize(
    "text",
    [
        b"id: a.1\ndata: 1\n\nid: a.3\ndata: 3\n\n",  # a number is left out
        b"id: a.1\ndata: 1\n\nid: b.2\ndata: 2\n\n",  # another run
        b"id: a.1\ndata: 1\ndata: 2\n\n",  # two lines of data
        b"id: a.1\n\nid: a.2\ndata: 1\ndata: 2\n\n",  # one with no data, one with two lines: the counts agree
        b"id: a\ndata: 1\n\n",
        b"id: a.x\ndata: 1\n\n",
        b": hb\nid: a.1\ndata: 1\n\n",
        b"id: a.1\ndata:1\n\n",
        b"data: 1\nid: a.1\n\n",
        b"id: a.1\ndata: 1\n\n\nid: a.2\ndata: 2\n\n",
    ],
)
def test_what_is_no_regular_batch_is_read_as_the_standard_says(text: bytes) -> None:
    events = feed(text)
    assert is_standard(dispatched(events), text)
    assert text.startswith(b": hb") or not any(isinstance(event, Batch) for event in events)


def test_heartbeats_comments_and_unknown_fields_are_passed_over() -> None:
    assert feed(HEARTBEAT, b": other\n\nfoo: bar\nid: a.1\ndata: 1\n\n") == [Event("message", b"1", "a.1")]


def test_line_ends_of_any_kind_and_a_byte_order_mark_are_read() -> None:
    text = b"\xef\xbb\xbfevent: end\r\ndata: 1\r\rdata: 2\n\r\ndata: 3\r\n\r\n"
    assert feed(text) == [Event("end", b"1"), Event("message", b"2"), Event("message", b"3")]
    assert [event for n in range(len(text)) for event in feed(text[:n], text[n:])] == feed(text) * len(text)


def test_retry_is_kept_and_nonsense_is_not() -> None:
    decoder = EventStreamDecoder()
    decoder.feed(b"retry: 150\nevent: start\ndata: {}\n\nretry: soon\ndata: 1\n\n")
    assert decoder.retry_ms == 150


def test_an_id_with_a_nul_is_none_as_the_standard_says() -> None:
    assert feed(b"id: a\0b\ndata: 1\n\n") == [Event("message", b"1", None)]


def test_an_event_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventstream, "EVENT_LIMIT_BYTES", 1000)
    decoder = EventStreamDecoder()
    decoder.feed(b"data: " + b"x" * 900)
    with pytest.raises(EventTooLarge, match="1000 bytes"):
        decoder.feed(b"x" * 200)


def test_what_our_encoder_writes_comes_back() -> None:
    encoder = SseEncoder(RUN, retry_ms=100)
    events = feed(
        encoder.encode(Started(RUN, "train", {})),
        encoder.encode(Status("queued", {"position": 1})),
        encoder.encode(Chunks(1, [b"1", b'"a\\nb"', b"[1,\n2]"], 0)),
        HEARTBEAT,
        encoder.encode(Gap(4, 9, "evicted")),
        encoder.encode(Ended(Outcome.OK, 9)),
    )
    assert events == [
        Event("start", b'{"run":"%b","tool":"train"}' % RUN.encode(), f"{RUN}.0"),
        Event("status", b'{"state":"queued","position":1}'),
        Event("message", b"1", f"{RUN}.1"),
        Event("message", b'"a\\nb"', f"{RUN}.2"),
        Event("message", b"[1,\n2]", f"{RUN}.3"),
        Event("gap", b'{"from":4,"to":9,"reason":"evicted"}'),
        Event("end", b'{"status":"ok","chunks":9}', f"{RUN}.end"),
    ]


LINES = st.sampled_from(
    [
        b"id: r.1",
        b"id: r.2",
        b"id: r.3",
        b"id",
        b"data: 1",
        b"data: [1,2]",
        b"data:x",
        b"data",
        b"data: q.2",
        b"event: end",
        b": hb",
        b"retry: 5",
        b"nonsense",
        b"",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"])
TEXTS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda lines: b"".join(line + end for line, end in lines))
REGULAR = st.lists(st.sampled_from([THREE, HEARTBEAT, b"id: r.1\ndata: 1\n\n", b"event: gap\ndata: 0\n\n"]), max_size=8).map(b"".join)


@given(TEXTS | REGULAR, st.lists(st.integers(1, 12), min_size=1))
def test_any_text_in_any_fragments_is_what_the_standard_says(text: bytes, sizes: list[int]) -> None:
    # The reference waits after a last CR for its LF; so that both have seen the same.
    text = text.rstrip(b"\r")
    parts, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        parts.append(text[at : at + size])
        at, turn = at + size, turn + 1
    assert dispatched(feed(*parts)) == dispatched(feed(text))
    assert is_standard(dispatched(feed(text)), text)
