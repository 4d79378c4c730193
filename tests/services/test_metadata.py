from __future__ import annotations

import pytest

from gateway.errors import GatewayError
from gateway.services.metadata import ANSWER_LIMIT, headers_of, metadata_of, passed_name


@pytest.mark.parametrize("name", ["X-Tenant", "authorization", "cookie", "x.y_z-bin", "set-cookie"])
def test_these_may_be_passed(name: str) -> None:
    assert passed_name(name) == name.lower()


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Length", "transfer-encoding", "Host", "connection", "te", "grpc-timeout", "grpc-status", ":path", "Retry-After"),
        *("Access-Control-Allow-Origin", "sec-fetch-site", "traceparent", "X-Request-Id", "", "a b", "a\nb", "ä", "x" * 129),
    ],
)
def test_these_may_not(name: str) -> None:
    with pytest.raises(ValueError, match=r"passed|no name"):
        passed_name(name)


def test_headers_become_metadata_as_often_as_they_come() -> None:
    headers = [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"x-c-bin", b"AAE")]
    assert metadata_of(headers, {"x-a", "x-c-bin"}) == [("x-a", "1"), ("x-a", "3"), ("x-c-bin", "AAE")]
    assert metadata_of(headers, frozenset()) == []


@pytest.mark.parametrize("value", [b"\xe9", b"a\tb", b"a\r\nb", b"\x00"])
def test_a_value_that_is_no_metadata_is_an_error_that_names_its_header(value: bytes) -> None:
    with pytest.raises(GatewayError) as raised:
        metadata_of([(b"x-a", value)], {"x-a"})
    assert (raised.value.problem, raised.value.errors[0].field) == ("invalid-option", "x-a")


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b=c", "a\nb", "\x00", "é", "\ufffd"])
def test_metadata_that_would_break_the_answers_head_is_left_out(value: str) -> None:
    assert headers_of({"x-a": value, "x-b": "fine"}, {"x-a", "x-b"}) == [("x-b", "fine")]


def test_what_an_answer_passes_is_bounded() -> None:
    sent = {f"x-{number}": "v" * 4000 for number in range(100)}
    passed = headers_of(sent, set(sent))
    assert 0 < sum(len(name) + len(value) for name, value in passed) <= ANSWER_LIMIT
