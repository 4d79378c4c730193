"""What is taken of a client's ids, and what is made up in their place."""

from __future__ import annotations

import re

import pytest

from gateway.correlation import Correlation, correlate, correlation_of, from_metadata, is_traceparent, new_request_id

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("text", [PARENT, PARENT[:-2] + "00", "01" + PARENT[2:], "cc" + PARENT[2:] + "-what-comes"])
def test_a_valid_traceparent_is_one(text: str) -> None:
    assert is_traceparent(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ff" + PARENT[2:],
        PARENT + "-more",
        PARENT + "\n",
        PARENT.upper(),
        PARENT.replace(TRACE_ID, "0" * 32),
        PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT[:-1],
        "01" + PARENT[2:] + "more",
        "cc" + PARENT[2:] + "-" + "x" * 300,
    ],
)
def test_an_invalid_traceparent_is_as_if_it_had_not_come(text: str) -> None:
    assert not is_traceparent(text)
    assert correlate("r", text, "a=b") == Correlation("r")


@pytest.mark.parametrize("text", ["a", "A-1_b.c:d+e/f=g@h", "x" * 128])
def test_a_sane_request_id_is_kept(text: str) -> None:
    assert correlate(text).request_id == text


@pytest.mark.parametrize("text", [None, "", "x" * 129, "a b", "a\r\nset-cookie: b", "ä", 'a"b', "a\x00"])
def test_any_other_request_id_is_replaced(text: str | None) -> None:
    assert correlate(text).request_id not in ("", text)


def test_made_up_request_ids_differ() -> None:
    assert len({new_request_id() for _ in range(1000)}) == 1000


def test_tracestate_comes_only_with_a_trace_and_only_when_it_is_sane() -> None:
    assert correlate("r", PARENT, "a=b") == Correlation("r", PARENT, "a=b")
    assert correlate("r", None, "a=b").tracestate is None
    assert correlate("r", PARENT, "a=" + "b" * 600).tracestate is None
    assert correlate("r", PARENT, "a=\x01").tracestate is None


def test_a_scope_has_one_correlation_however_often_it_is_asked_for() -> None:
    scope = {"headers": [(b"x-request-id", b"mine"), (b"traceparent", PARENT.encode()), (b"tracestate", b"a=1"), (b"tracestate", b"b=2")]}
    correlation = correlation_of(scope)
    assert correlation == ("mine", PARENT, "a=1,b=2")
    assert correlation.trace_id == TRACE_ID
    assert correlation_of(scope) is correlation
    bare = {"headers": []}
    assert correlation_of(bare) is correlation_of(bare)


def test_two_traceparents_are_none() -> None:
    header = (b"traceparent", PARENT.encode())
    assert correlation_of({"headers": [header, header]}).traceparent is None


def test_a_grpc_call_says_its_id_as_snakepits_clients_do() -> None:
    headers = [("x-snakepit-correlation-id", "h"), ("x-request-id", "x"), ("traceparent", PARENT), ("some-bin", b"\x00")]
    assert from_metadata(headers, {"correlation_id": "c"}) == ("c", PARENT, None)
    assert from_metadata(headers, {}).request_id == "h"
    # An empty one is there, and hides the header.
    for given in ({"correlation_id": ""}, {"correlation_id": "not an id"}):
        assert re.fullmatch(r"sp-[0-9a-f]{24}", from_metadata(headers, given).request_id)
    assert from_metadata(headers[1:], {}).request_id == "x"
    assert from_metadata([], {}).request_id


def test_the_worker_is_told_all_of_it() -> None:
    assert Correlation("r", PARENT, "a=b").metadata() == [
        ("x-snakepit-correlation-id", "r"),
        ("traceparent", PARENT),
        ("tracestate", "a=b"),
    ]
    assert Correlation().metadata() == []
