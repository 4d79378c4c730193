from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.ndjson import HEARTBEAT, NdjsonEncoder
from gateway.errors import GatewayError
from gateway.events import Chunks, Ended, Gap, Outcome, Started, Status, Timing
from tests.codec.test_sse import JSON_TEXTS, RUN, batch


@pytest.fixture
def encoder() -> NdjsonEncoder:
    return NdjsonEncoder(RUN)


def test_each_event_is_an_object_under_its_name_on_one_line(encoder: NdjsonEncoder) -> None:
    events = [
        Started(RUN, "train", {}),
        Status("queued", {"position": 1, "depth": 1}),
        Gap(1, 2, "evicted"),
        Ended(Outcome.OK, 3, {}, Timing(None, None, 5)),
    ]
    assert [encoder.encode(event) for event in events] == [
        b'{"start":{"run":"%b","tool":"train"}}\n' % RUN.encode(),
        b'{"status":{"state":"queued","position":1,"depth":1}}\n',
        b'{"gap":{"from":1,"to":2,"reason":"evicted"}}\n',
        b'{"end":{"status":"ok","chunks":3,"timing":{"queue_ms":null,"first_chunk_ms":null,"total_ms":5}}}\n',
    ]


def test_chunks_carry_their_number_and_value(encoder: NdjsonEncoder) -> None:
    assert encoder.encode(batch(b'{"a":1}', b"null", first=4)) == b'{"seq":4,"data":{"a":1}}\n{"seq":5,"data":null}\n'


def test_heartbeat_is_an_empty_line(encoder: NdjsonEncoder) -> None:
    assert encoder.heartbeat == HEARTBEAT == b"\n"


def test_problem_names_the_run(encoder: NdjsonEncoder) -> None:
    end = orjson.loads(encoder.encode(Ended(Outcome.ERROR, 0, error=GatewayError("worker-lost", "gone"))))["end"]
    assert end["error"]["instance"] == f"/v1/runs/{RUN}"


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_unicode_line_separators_are_escaped(encoder: NdjsonEncoder, separator: str) -> None:
    text = encoder.encode(batch(json.dumps(separator, ensure_ascii=False).encode()))
    assert len(text.decode().splitlines()) == 1
    assert orjson.loads(text)["data"] == separator


@given(st.lists(JSON_TEXTS, min_size=1, max_size=8), st.integers(1, 10**6))
def test_any_batch_round_trips_a_line_a_chunk(payloads: list[bytes], first: int) -> None:
    text = NdjsonEncoder(RUN).encode(Chunks(first, payloads, 0))
    assert text.endswith(b"\n")
    assert b"\r" not in text
    lines = [orjson.loads(line) for line in text.decode().splitlines()]
    assert lines == [{"seq": first + n, "data": orjson.loads(payload)} for n, payload in enumerate(payloads)]
