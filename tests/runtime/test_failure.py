"""failure.py: exceptions as a status code and a bounded JSON detail."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest

from gateway.errors import Code, FieldError
from gateway.runtime.failure import InvalidArguments, ToolError, code_of, describe
from gateway.runtime.limits import DETAIL_LIMIT_BYTES


class OwnMissing(FileNotFoundError):
    pass


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("x"), Code.INVALID_ARGUMENT),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), Code.INVALID_ARGUMENT),
        (FileNotFoundError("x"), Code.NOT_FOUND),
        (OwnMissing("x"), Code.NOT_FOUND),
        (PermissionError("x"), Code.PERMISSION_DENIED),
        (NotImplementedError("x"), Code.UNIMPLEMENTED),
        (TimeoutError("x"), Code.DEADLINE_EXCEEDED),
        (MemoryError("x"), Code.RESOURCE_EXHAUSTED),
        (KeyError("x"), Code.INTERNAL),
        (OSError("x"), Code.INTERNAL),
        (RuntimeError("x"), Code.INTERNAL),
        (SystemExit(3), Code.INTERNAL),
        (ToolError("failed_precondition", "x"), Code.FAILED_PRECONDITION),
        (ToolError(Code.ABORTED, "x"), Code.ABORTED),
        (ToolError(14, "x"), Code.UNAVAILABLE),
    ],
    ids=repr,
)
def test_exception_maps_to_its_code(error: BaseException, code: Code) -> None:
    assert code_of(error) is code


@pytest.mark.parametrize("code", ["NOPE", "OK", 0, 99])
def test_tool_error_with_no_error_code_is_refused(code: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        ToolError(code, "x")


def described(error: BaseException) -> dict[str, Any]:
    try:
        raise error
    except BaseException as caught:
        failure = describe(caught, tool="train", session_id="s1")
    assert failure.detail.isascii()
    assert len(urllib.parse.quote(failure.detail, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))) <= DETAIL_LIMIT_BYTES
    document: dict[str, Any] = json.loads(failure.detail)
    return document


def test_detail_has_snakepits_fields() -> None:
    document = described(ValueError("boom é"))
    assert document["type"] == "ValueError"
    assert document["message"] == "boom é"
    assert document["context"] == {"tool_name": "train", "session_id": "s1"}
    assert document["traceback"] == "".join(document["stacktrace"])
    assert "raise error" in document["traceback"]


def test_details_of_the_author_are_passed_on() -> None:
    assert described(ToolError("NOT_FOUND", "no model", {"model": "m"}))["details"] == {"model": "m"}


def test_details_without_a_json_form_become_text() -> None:
    assert described(ToolError("NOT_FOUND", "x", {1, 2}))["details"] == "{1, 2}"


def test_field_errors_are_listed_and_no_traceback() -> None:
    document = described(InvalidArguments("x", [FieldError("/epochs", "wrong")]))
    assert document["errors"] == [{"field": "/epochs", "detail": "wrong"}]
    assert document["stacktrace"] == []


def deep(level: int) -> None:
    if level:
        deep_two(level - 1)
    raise RuntimeError("innermost")


def deep_two(level: int) -> None:
    long_name_that_fills_the_traceback_with_text = "x" * 10
    deep(level - 1 if long_name_that_fills_the_traceback_with_text else 0)


def test_long_traceback_keeps_its_innermost_frames_and_the_message() -> None:
    try:
        deep(200)
    except RuntimeError as error:
        document = described(error)
    assert document["message"] == "innermost"
    assert len(document["stacktrace"]) > 0
    assert "RuntimeError: innermost" in document["stacktrace"][-1]
    assert 'raise RuntimeError("innermost")' in document["traceback"]


@pytest.mark.parametrize("message", ["m" * 100_000, "%" * 20_000, "é" * 20_000, '"\\\n' * 9_000])
def test_long_message_is_cut_so_that_it_arrives(message: str) -> None:
    document = described(ValueError(message))
    assert document["message"].endswith("…")
    assert message.startswith(document["message"][:100])


def test_hundred_wrong_fields_are_cut_to_a_few() -> None:
    errors = [FieldError(f"/{'f' * 500}{i}", "d" * 500) for i in range(100)]
    document = described(InvalidArguments("m" * 3000, errors))
    assert 0 < len(document["errors"]) <= 8


def test_large_details_are_dropped_before_the_message() -> None:
    document = described(ToolError("ABORTED", "short", ["x" * 9000]))
    assert "details" not in document
    assert document["message"] == "short"


def test_exception_whose_text_raises_is_still_described() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert "Mute" in described(Mute())["message"]


def test_recursion_error_is_described() -> None:
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError) as caught:
        endless()
    assert described(caught.value)["type"] == "RecursionError"
