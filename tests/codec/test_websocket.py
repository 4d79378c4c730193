from __future__ import annotations

import contextlib
import json
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from gateway.codec import websocket as codec
from gateway.codec.websocket import BadFrame, ClientFrame, EventEncoder, FrameEncoder, read_frame
from gateway.errors import GatewayError
from gateway.events import Ended, Gap, Outcome, Started, Status
from tests.codec.test_sse import JSON_TEXTS, JSON_VALUES, RUN, batch

SUBSCRIBE = {"type": "subscribe", "id": "a", "payload": {"tool": "count"}}


@pytest.mark.parametrize(
    ("document", "frame"),
    [
        ({"type": "connection_init"}, ClientFrame("connection_init")),
        ({"type": "connection_init", "payload": {"token": "t"}}, ClientFrame("connection_init", "", {"token": "t"})),
        ({"type": "ping"}, ClientFrame("ping")),
        ({"type": "pong", "payload": None}, ClientFrame("pong")),
        (SUBSCRIBE, ClientFrame("subscribe", "a", {"tool": "count"})),
        ({"type": "attach", "id": "a", "payload": {"run": "r"}}, ClientFrame("attach", "a", {"run": "r"})),
        ({"type": "credit", "id": "a", "n": 1}, ClientFrame("credit", "a", n=1)),
        ({"type": "credit", "id": "a", "n": 1_000_000}, ClientFrame("credit", "a", n=1_000_000)),
        ({"type": "complete", "id": "a", "n": 5}, ClientFrame("complete", "a")),
        ({"type": "cancel", "id": "a" * 128, "unknown": 1}, ClientFrame("cancel", "a" * 128)),
    ],
)
def test_read_frame_returns_each_kind(document: dict[str, object], frame: ClientFrame) -> None:
    assert read_frame(orjson.dumps(document).decode()) == frame


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 2000, "not JSON"),
        ("[]", "a JSON object"),
        ("null", "a JSON object"),
        ("{}", "unknown frame type"),
        ('{"type":1}', "unknown frame type"),
        ('{"type":["ping"]}', "unknown frame type"),
        ('{"type":"start"}', "known: connection_init, ping"),
        ('{"type":"complete"}', "needs an `id`"),
        ('{"type":"complete","id":""}', "needs an `id`"),
        ('{"type":"cancel","id":7}', "needs an `id`"),
        ('{"type":"cancel","id":"%s"}' % ("a" * 129), "1 to 128"),
        ('{"type":"subscribe","id":"a"}', "needs a `payload`"),
        ('{"type":"subscribe","id":"a","payload":[]}', "needs a `payload`"),
        ('{"type":"ping","payload":1}', "needs a `payload`"),
        ('{"type":"attach","id":"a"}', "attach needs a `payload`"),
        ('{"type":"attach","payload":{}}', "attach needs an `id`"),
        ('{"type":"credit","n":1}', "credit needs an `id`"),
        *((f'{{"type":"credit","id":"a","n":{n}}}', "from 1 to 1000000") for n in ("0", "-1", "1000001", "1.0", "true", '"1"', "null")),
        ('{"type":"credit","id":"a"}', "from 1 to 1000000"),
    ],
)
def test_read_frame_refuses_what_breaks_the_subprotocol(text: str, reason: str) -> None:
    with pytest.raises(BadFrame) as caught:
        read_frame(text)
    assert reason in caught.value.reason
    assert caught.value.close_code == 4400


@given(st.text() | st.dictionaries(st.sampled_from(["type", "id", "payload"]), JSON_VALUES).map(json.dumps))
def test_read_frame_raises_nothing_but_bad_frame(text: str) -> None:
    with contextlib.suppress(BadFrame):
        read_frame(text)


@given(st.text(max_size=500))
def test_close_reason_fits_a_close_frame(text: str) -> None:
    reason = codec.close_reason(text)
    assert len(reason.encode()) <= 123
    assert text.startswith(reason)


def test_next_frames_carry_the_name_the_event_id_and_the_payload() -> None:
    frames = FrameEncoder(RUN, 'a"b').encode(batch(b'{"x":1}', b'"\xc3\xa9"', first=3))
    assert [orjson.loads(frame) for frame in frames] == [
        {"type": "next", "id": 'a"b', "eid": f"{RUN}.3", "payload": {"x": 1}},
        {"type": "next", "id": 'a"b', "eid": f"{RUN}.4", "payload": "é"},
    ]


def test_other_events_are_frames_of_their_own() -> None:
    encoder = FrameEncoder(RUN, "a")
    events = [Started(RUN, "t", {"timeout_ms": 5}), Status("running", {"worker": "w"}), Gap(1, 2, "evicted")]
    assert [orjson.loads(encoder.encode(event)[0]) for event in events] == [
        {"type": "start", "id": "a", "payload": {"run": RUN, "tool": "t", "timeout_ms": 5}},
        {"type": "status", "id": "a", "payload": {"state": "running", "worker": "w"}},
        {"type": "gap", "id": "a", "payload": {"from": 1, "to": 2, "reason": "evicted"}},
    ]


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.CANCELLED, Outcome.SHUTDOWN])
def test_a_run_that_did_not_fail_ends_with_complete(outcome: Outcome) -> None:
    error = None if outcome is Outcome.OK else GatewayError("cancelled", "x")
    (frame,) = FrameEncoder(RUN, "a").encode(Ended(outcome, 2, error=error))
    document = orjson.loads(frame)
    assert (document["type"], document["id"], document["payload"]["status"]) == ("complete", "a", outcome.value)


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.DEADLINE])
def test_a_run_that_failed_ends_with_error_and_its_problem(outcome: Outcome) -> None:
    (frame,) = FrameEncoder(RUN, "a").encode(Ended(outcome, 2, error=GatewayError("worker-timeout", "late")))
    document = orjson.loads(frame)
    assert (document["type"], document["payload"]["type"]) == ("error", "/problems/worker-timeout")
    assert document["end"] == {"status": outcome.value, "chunks": 2}


def test_a_reader_that_was_cut_is_told_by_an_error_without_an_end() -> None:
    (frame,) = FrameEncoder(RUN, "a").cut()
    document = orjson.loads(frame)
    assert (document["type"], document["id"], document["payload"]["type"]) == ("error", "a", "/problems/slow-reader")
    assert "end" not in document
    assert EventEncoder(RUN).cut() == []


def test_plain_socket_events_have_the_sse_names_and_ids() -> None:
    encoder = EventEncoder(RUN)
    events = [Started(RUN, "t", {}), Status("running"), batch(b"7"), Ended(Outcome.OK, 1)]
    messages = [orjson.loads(text) for event in events for text in encoder.encode(event)]
    assert [(message["event"], message.get("id")) for message in messages] == [
        ("start", f"{RUN}.0"),
        ("status", None),
        ("message", f"{RUN}.1"),
        ("end", f"{RUN}.end"),
    ]
    assert messages[2]["data"] == 7


@given(st.lists(JSON_TEXTS, min_size=1, max_size=6), st.text(min_size=1, max_size=20))
def test_any_batch_round_trips_in_both_encodings(payloads: list[bytes], name: str) -> None:
    expected = [orjson.loads(payload) for payload in payloads]
    assert [orjson.loads(frame)["payload"] for frame in FrameEncoder(RUN, name).encode(batch(*payloads))] == expected
    assert [orjson.loads(message)["data"] for message in EventEncoder(RUN).encode(batch(*payloads))] == expected


@given(st.lists(st.text(max_size=200) | st.sampled_from([125, 126, 65_535, 65_536]).map("x".__mul__), max_size=6), st.data())
def test_text_frames_are_read_back_by_websockets_in_any_fragments(texts: list[str], data: st.DataObject) -> None:
    wire = codec.text_frames([text.encode() for text in texts])
    client = ClientProtocol(parse_uri("ws://test/"), state=State.OPEN)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    for start, end in pairwise([0, *cuts, len(wire)]):
        client.receive_data(wire[start:end])
    frames = [frame for frame in client.events_received() if isinstance(frame, Frame)]
    assert [(frame.opcode, frame.fin, frame.data.decode()) for frame in frames] == [(Opcode.TEXT, True, text) for text in texts]
    assert client.data_to_send() == []


@given(
    st.sampled_from(["subscribe", "attach", "complete", "cancel"]),
    st.text(min_size=1, max_size=128).filter(lambda name: name.isprintable()),
    st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3),
)
def test_any_good_frame_is_read_as_it_was_written(kind: str, name: str, payload: dict[str, object]) -> None:
    written = json.dumps({"type": kind, "id": name, "payload": payload})
    assert read_frame(written) == ClientFrame(kind, name, payload)


def test_socket_frames_are_json() -> None:
    assert orjson.loads(codec.ack({"max_runs": 2})) == {"type": "connection_ack", "payload": {"max_runs": 2}}
    delivered = {"type": "complete", "id": "a", "payload": {"run": RUN, "delivered": True}}
    assert orjson.loads(codec.delivered("a", RUN)) == delivered
    assert orjson.loads(codec.goaway(500)) == {"type": "goaway", "payload": {"reconnect_in_ms": 500}}
    assert (orjson.loads(codec.PING), orjson.loads(codec.PONG)) == ({"type": "ping"}, {"type": "pong"})
    refused = orjson.loads(codec.refused(GatewayError("tool-not-found", "no")))
    assert (refused["event"], refused["data"]["status"], refused["data"]["chunks"]) == ("end", "error", 0)
