"""Statuses read from trailers, HTTP statuses and resets; the timeout header."""

from __future__ import annotations

import pytest

from gateway.errors import Code
from gateway.transport.base import CallStatus
from gateway.transport.status import format_timeout, status_from_http, status_from_reset, status_from_trailers


@pytest.mark.parametrize(
    ("trailers", "status"),
    [
        ({"grpc-status": "0"}, CallStatus(Code.OK)),
        ({"grpc-status": "0", "grpc-message": ""}, CallStatus(Code.OK)),
        ({"grpc-status": "0", "grpc-message": "fine"}, CallStatus(Code.OK, "fine")),
        ({"grpc-status": "5", "grpc-message": "nothing%20here"}, CallStatus(Code.NOT_FOUND, "nothing here")),
        ({"grpc-status": "5", "grpc-message": "%C3%BC%E2%86%92"}, CallStatus(Code.NOT_FOUND, "ü→")),
        ({"grpc-status": "5", "grpc-message": "100%"}, CallStatus(Code.NOT_FOUND, "100%")),
        ({"grpc-status": "5", "grpc-message": "%zz%2"}, CallStatus(Code.NOT_FOUND, "%zz%2")),
        ({"grpc-status": "5", "grpc-message": "%ff"}, CallStatus(Code.NOT_FOUND, "\ufffd")),
        ({"grpc-status": "13", "grpc-status-details-bin": "AP8"}, CallStatus(Code.INTERNAL, details=b"\x00\xff")),
        ({"grpc-status": "13", "grpc-status-details-bin": "AP8="}, CallStatus(Code.INTERNAL, details=b"\x00\xff")),
        ({"grpc-status": "13", "grpc-status-details-bin": "!"}, CallStatus(Code.INTERNAL)),
        ({"grpc-status": "99"}, CallStatus(Code.UNKNOWN)),
        ({"grpc-status": "-1"}, CallStatus(Code.UNKNOWN)),
        ({"grpc-status": ""}, CallStatus(Code.UNKNOWN)),
        ({"grpc-status": "²"}, CallStatus(Code.UNKNOWN)),
        ({"grpc-status": "9" * 5000}, CallStatus(Code.UNKNOWN)),
        ({"grpc-status": "0", "hint": "x", ":status": "200"}, CallStatus(Code.OK, trailers={"hint": "x"})),
    ],
)
def test_trailers_give_the_status(trailers: dict[str, str], status: CallStatus) -> None:
    assert status_from_trailers(trailers) == status


def test_trailers_without_a_status_are_unknown() -> None:
    assert status_from_trailers({"hint": "x"}).code is Code.UNKNOWN


def test_http_answer_names_status_and_content_type() -> None:
    status = status_from_http("502", "text/html")
    assert status.code is Code.UNAVAILABLE
    assert "502" in status.message
    assert "text/html" in status.message


@pytest.mark.parametrize(("number", "code"), [(7, Code.UNAVAILABLE), (8, Code.CANCELLED), (5, Code.UNKNOWN), (0x1234, Code.UNKNOWN)])
def test_reset_gives_the_code_and_names_the_reason(number: int, code: Code) -> None:
    status = status_from_reset(number)
    assert status.code is code
    assert not status.connection_lost


def test_reset_of_unknown_number_says_the_number() -> None:
    assert "0x1234" in status_from_reset(0x1234).message


@pytest.mark.parametrize(
    ("timeout_s", "header"),
    [
        (0.0, "1u"),
        (1e-9, "1u"),
        (0.25, "250000u"),
        (98.5, "98500000u"),
        (99.0, "99000m"),
        (300.0001, "300001m"),
        (99_999, "99999S"),
        (1e12, "99999999S"),
    ],
)
def test_timeout_has_at_most_eight_digits_and_is_rounded_up(timeout_s: float, header: str) -> None:
    assert format_timeout(timeout_s) == header
    assert len(header) <= 9
