"""What an `attach` payload may say, and what is said about a wrong one."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.attachment import MEMBERS, Attachment, read_attach, read_event_id
from gateway.errors import GatewayError
from gateway.runs.policy import ReaderOptions
from tests.codec.test_sse import JSON_VALUES

RUN = "r_01ARZ3NDEKTSV4RRFFQ69G5FAV"
OTHER = "r_01ARZ3NDEKTSV4RRFFQ69G5FAW"
LAG = 1000


def reading(after: int | None = None, *, live: bool = False) -> ReaderOptions:
    return ReaderOptions(lag_bytes=LAG, after=after, live=live)


@pytest.mark.parametrize(
    ("payload", "attachment"),
    [
        ({"run": RUN}, Attachment(RUN, reading())),
        ({"run": "anything"}, Attachment("anything", reading())),
        ({"run": RUN, "last_event_id": None, "from": None, "role": None, "overflow": None, "credit": None}, Attachment(RUN, reading())),
        ({"run": RUN, "from": "start"}, Attachment(RUN, reading())),
        ({"run": RUN, "from": "live"}, Attachment(RUN, reading(live=True))),
        ({"run": RUN, "from": 7}, Attachment(RUN, reading(7))),
        ({"run": RUN, "from": "7"}, Attachment(RUN, reading(7))),
        ({"run": RUN, "from": 0}, Attachment(RUN, reading(0))),
        ({"run": RUN, "last_event_id": f"{RUN}.7"}, Attachment(RUN, reading(7))),
        ({"last_event_id": f"{RUN}.7"}, Attachment(RUN, reading(7))),
        ({"last_event_id": f"{RUN}.7", "from": "live"}, Attachment(RUN, reading(7))),
        ({"last_event_id": f"{RUN}.end"}, Attachment(RUN, reading(), delivered=True)),
        ({"run": RUN, "role": "subscriber", "overflow": "block", "credit": 64}, Attachment(RUN, reading(), credit=64)),
    ],
)
def test_read_attach_returns_the_run_and_how_to_read_it(payload: dict[str, Any], attachment: Attachment) -> None:
    assert read_attach(payload, lag_bytes=LAG) == attachment


@pytest.mark.parametrize(
    ("payload", "field", "detail"),
    [
        ({}, "run", "is required"),
        ({"run": ""}, "run", "a text"),
        ({"run": 5}, "run", "a text"),
        ({"run": RUN, "last_event_id": ""}, "last_event_id", f"an event id of this run, {RUN}.<number>"),
        ({"run": RUN, "last_event_id": 7}, "last_event_id", "is '7'"),
        ({"run": RUN, "last_event_id": f"{OTHER}.7"}, "last_event_id", f"{RUN}.<number>"),
        ({"last_event_id": f"{RUN}.x"}, "last_event_id", "<run>.<number>"),
        *(({"run": RUN, "from": value}, "from", "start, live, or") for value in (-1, True, 1.0, "", "-1", "²", [], 10**15, "9" * 16)),
        *(({"run": RUN, "credit": value}, "credit", "from 1 to 1000000") for value in (0, -1, True, "5", 1.5, 1_000_001)),
        ({"run": RUN, "role": "king"}, "role", "subscriber"),
        ({"run": RUN, "overflow": 1}, "overflow", "block"),
        ({"run": RUN, "rle": 1}, "rle", "did you mean role? known: run, last_event_id, from, role, overflow, credit"),
        ({"run": RUN, "tool": "count"}, "tool", "is no member of attach"),
    ],
)
def test_read_attach_names_what_is_wrong_and_what_is_allowed(payload: dict[str, Any], field: str, detail: str) -> None:
    with pytest.raises(GatewayError) as caught:
        read_attach(payload, lag_bytes=LAG)
    assert caught.value.problem == "invalid-option"
    ((named, said),) = caught.value.errors
    assert named == field
    assert detail in said


@given(st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=5), JSON_VALUES))
def test_read_attach_raises_nothing_but_gateway_errors(payload: dict[str, Any]) -> None:
    with contextlib.suppress(GatewayError):
        read_attach(payload, lag_bytes=LAG)


@given(st.integers(0, 10**15 - 1))
def test_every_event_id_of_sse_is_read(number: int) -> None:
    assert read_event_id("x", f"{RUN}.{number}", of=RUN) == (RUN, number)
