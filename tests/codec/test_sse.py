from __future__ import annotations

import json

import httpx
import orjson
import pytest
from httpx_sse import EventSource as HttpxEventSource
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.sse import HEARTBEAT, SseEncoder
from gateway.errors import Code, FieldError, GatewayError, ToolFailed
from gateway.events import Chunks, Ended, Gap, Outcome, Started, Status, Timing
from tests.codec.eventsource import EventSource

RUN = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
# JSON texts as workers write them: compact, or indented with any line ending.
JSON_TEXTS = st.builds(
    lambda value, indent, ending: (
        json.dumps(value, ensure_ascii=False, indent=indent).replace("\n", ending).encode("utf-8", "surrogatepass")
    ),
    JSON_VALUES,
    st.none() | st.integers(0, 2),
    st.sampled_from(["\n", "\r\n", "\r"]),
).filter(lambda text: b"\xed" not in text)


@pytest.fixture
def encoder() -> SseEncoder:
    return SseEncoder(RUN, retry_ms=2000)


def batch(*payloads: bytes, first: int = 1) -> Chunks:
    return Chunks(first, list(payloads), sum(map(len, payloads)))


def parse(*parts: bytes) -> EventSource:
    source = EventSource()
    for part in parts:
        source.feed(part)
    return source


def test_start_has_retry_id_event_data_in_this_order(encoder: SseEncoder) -> None:
    text = encoder.encode(Started(RUN, "train", {"on_disconnect": "cancel"}))
    assert text == (
        b"retry: 2000\nid: %b.0\nevent: start\n"
        b'data: {"run":"%b","tool":"train","on_disconnect":"cancel"}\n\n' % (RUN.encode(), RUN.encode())
    )


def test_start_of_a_resumed_reader_has_no_id_and_says_from_where(encoder: SseEncoder) -> None:
    text = encoder.encode(Started(RUN, "train", {}, resumed_from=7))
    assert text.startswith(b"retry: 2000\nevent: start\n")
    assert orjson.loads(parse(text).messages[0].data) == {"run": RUN, "tool": "train", "resumed": True, "from": 7}


def test_chunks_are_unnamed_events_numbered_without_a_hole(encoder: SseEncoder) -> None:
    text = encoder.encode(batch(b'{"epoch":1}', b'"Hello"', first=9))
    assert text == b'id: %b.9\ndata: {"epoch":1}\n\nid: %b.10\ndata: "Hello"\n\n' % (RUN.encode(), RUN.encode())


def test_status_and_gap_have_a_name_and_no_id(encoder: SseEncoder) -> None:
    assert (
        encoder.encode(Status("queued", {"position": 2, "depth": 5}))
        == b'event: status\ndata: {"state":"queued","position":2,"depth":5}\n\n'
    )
    assert encoder.encode(Gap(2, 9, "slow_consumer")) == b'event: gap\ndata: {"from":2,"to":9,"reason":"slow_consumer"}\n\n'


def test_end_has_the_end_id_and_says_everything(encoder: SseEncoder) -> None:
    text = encoder.encode(Ended(Outcome.OK, 10, {"worker_id": "w-1"}, Timing(3, 41, 2210)))
    assert text == (
        b'id: %b.end\nevent: end\ndata: {"status":"ok","chunks":10,"metadata":{"worker_id":"w-1"},'
        b'"timing":{"queue_ms":3,"first_chunk_ms":41,"total_ms":2210}}\n\n' % RUN.encode()
    )


def test_end_of_a_failed_run_holds_the_problem_document(encoder: SseEncoder) -> None:
    error = GatewayError("invalid-arguments", "no", errors=[FieldError("/a", "is required")])
    data = orjson.loads(parse(encoder.encode(Ended(Outcome.ERROR, 0, error=error))).messages[0].data)
    assert data["status"] == "error"
    assert data["error"] == {
        "type": "/problems/invalid-arguments",
        "title": "The arguments do not fit the tool's schema",
        "status": 422,
        "detail": "no",
        "instance": f"/v1/runs/{RUN}",
        "code": "INVALID_ARGUMENT",
        "retryable": False,
        "errors": [{"field": "/a", "detail": "is required"}],
    }


def test_traceback_is_shown_in_debug_mode_only() -> None:
    end = Ended(Outcome.ERROR, 0, error=ToolFailed(Code.INTERNAL, "boom", error_type="KeyError", traceback="line 3"))
    shown = [orjson.loads(parse(SseEncoder(RUN, retry_ms=0, debug=debug).encode(end)).messages[0].data)["error"] for debug in (False, True)]
    assert [error.get("traceback") for error in shown] == [None, "line 3"]
    assert [error["error_type"] for error in shown] == ["KeyError", "KeyError"]


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"])
def test_line_breaks_in_a_payload_become_data_lines(encoder: SseEncoder, ending: bytes) -> None:
    text = encoder.encode(batch(b'{%b"a": 1%b}' % (ending, ending), b"2"))
    assert text == b'id: %b.1\ndata: {\ndata: "a": 1\ndata: }\n\nid: %b.2\ndata: 2\n\n' % (RUN.encode(), RUN.encode())
    assert b"\r" not in text


def test_a_payload_cannot_forge_an_event(encoder: SseEncoder) -> None:
    source = parse(encoder.encode(batch(b"1\n\nevent: end\ndata: {}\n\n", b"\r\rid: forged\r")))
    assert [message.event for message in source.messages] == ["message", "message"]
    assert [message.last_event_id for message in source.messages] == [f"{RUN}.1", f"{RUN}.2"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_unicode_line_separators_are_escaped(encoder: SseEncoder, separator: str) -> None:
    value = f"a{separator}b\\{separator}"
    text = encoder.encode(batch(json.dumps(value, ensure_ascii=False).encode()))
    assert len(text.decode().splitlines()) == 3
    assert json.loads(parse(text).messages[0].data) == value


def test_unicode_line_separators_in_an_end_event_are_escaped(encoder: SseEncoder) -> None:
    text = encoder.encode(Ended(Outcome.OK, 0, {"note": "a\u2028b\u0085c"}))
    assert len(text.decode().splitlines()) == 4
    assert orjson.loads(parse(text).messages[0].data)["metadata"]["note"] == "a\u2028b\u0085c"


def test_heartbeat_is_one_comment_line_without_a_blank_one(encoder: SseEncoder) -> None:
    assert HEARTBEAT == b": hb\n"
    assert encoder.heartbeat is HEARTBEAT


def test_heartbeat_after_an_id_makes_no_ghost_event_in_httpx_sse(encoder: SseEncoder) -> None:
    parts = [
        encoder.encode(Started(RUN, "t", {})),
        HEARTBEAT,
        HEARTBEAT,
        encoder.encode(batch(b"1")),
        HEARTBEAT,
        encoder.encode(Ended(Outcome.OK, 1)),
    ]
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"".join(parts))
    events = [(event.event, event.data) for event in HttpxEventSource(response).iter_sse()]
    assert [name for name, _ in events] == ["start", "message", "end"]
    assert events[1] == ("message", "1")


@given(st.lists(JSON_TEXTS, min_size=1, max_size=8), st.integers(1, 10**6))
def test_any_batch_round_trips_through_both_decoders(payloads: list[bytes], first: int) -> None:
    text = SseEncoder(RUN, retry_ms=0).encode(batch(*payloads, first=first))
    expected = [orjson.loads(payload) for payload in payloads]
    source = parse(text)
    assert [orjson.loads(message.data) for message in source.messages] == expected
    assert [message.last_event_id for message in source.messages] == [f"{RUN}.{first + n}" for n in range(len(payloads))]
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=text)
    assert [orjson.loads(event.data) for event in HttpxEventSource(response).iter_sse()] == expected


@given(st.lists(st.binary(max_size=30).filter(lambda data: b"\0" not in data), min_size=1, max_size=5))
def test_no_payload_whatever_breaks_the_framing(payloads: list[bytes]) -> None:
    source = parse(SseEncoder(RUN, retry_ms=0).encode(batch(*payloads)))
    assert [message.last_event_id for message in source.messages] == [f"{RUN}.{n}" for n in range(1, len(payloads) + 1)]
    assert {message.event for message in source.messages} == {"message"}


@given(st.data())
def test_any_fragmentation_gives_the_same_events(data: st.DataObject) -> None:
    encoder = SseEncoder(RUN, retry_ms=5)
    payloads = data.draw(st.lists(JSON_TEXTS, min_size=1, max_size=4))
    text = encoder.encode(Started(RUN, "t", {})) + HEARTBEAT + encoder.encode(batch(*payloads)) + encoder.encode(Ended(Outcome.OK, 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    fragments = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parse(*fragments).messages == parse(text).messages
    assert len(parse(text).messages) == len(payloads) + 2


def test_an_end_by_shutdown_tells_each_reader_a_time_of_its_own_to_come_back(encoder: SseEncoder) -> None:
    end = Ended(Outcome.SHUTDOWN, 1)
    sources = [parse(encoder.encode(end)) for _ in range(20)]
    assert {source.messages[0].event for source in sources} == {"end"}
    times = {encoder.encode(end).partition(b"\n")[0] for _ in range(20)}
    assert len(times) > 1
    assert all(1000 <= int(time.removeprefix(b"retry: ")) <= 3000 for time in times)
