from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.runs.arguments import ERRORS_LIMIT, ArgumentChecker, pointer
from tests.conftest import ADD_SCHEMA, TYPED_SCHEMA


def errors_of(schema: dict[str, Any], arguments: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(GatewayError) as caught:
        ArgumentChecker("tool", schema).check(arguments)
    assert caught.value.problem == "invalid-arguments"
    return {error.field: error.detail for error in caught.value.errors}


def test_check_returns_for_arguments_that_fit() -> None:
    ArgumentChecker("add", ADD_SCHEMA).check({"a": 1, "b": 2.5})


def test_each_missing_argument_is_named() -> None:
    assert errors_of(ADD_SCHEMA, {}) == {"/a": "is required", "/b": "is required"}


def test_a_surplus_argument_is_told_what_is_allowed() -> None:
    assert errors_of(ADD_SCHEMA, {"a": 1, "b": 2, "c": 3, "d/e": 4}) == {
        "/c": "is not an argument of tool; allowed: a, b",
        "/d~1e": "is not an argument of tool; allowed: a, b",
    }


def test_a_tool_without_arguments_says_none_are_allowed() -> None:
    assert errors_of({"type": "object", "additionalProperties": False}, {"x": 1}) == {"/x": "is not an argument of tool; allowed: none"}


def test_wrong_types_are_told_per_field_with_a_pointer() -> None:
    errors = errors_of(TYPED_SCHEMA, {"whole": "x", "numbers": [1, "two", 3], "level": "middle"})
    assert errors == {
        "/whole": '"x" is not of type "integer"',
        "/numbers/1": '"two" is not of type "integer"',
        "/level": '"middle" is not one of "low" or "high"',
    }


def test_the_detail_names_the_tool_and_the_fields() -> None:
    with pytest.raises(GatewayError, match="add does not take these arguments: see errors for /a, /b"):
        ArgumentChecker("add", ADD_SCHEMA).check({})


def test_errors_are_bounded_in_number_and_length() -> None:
    errors = errors_of(ADD_SCHEMA, {f"surplus-{n}" + "y" * 1000: "x" * 10_000 for n in range(100)} | {"a": "z" * 10_000})
    assert len(errors) == ERRORS_LIMIT
    assert all(len(field) <= 301 and len(detail) <= 300 for field, detail in errors.items())


def test_pointer_escapes_as_rfc_6901_says() -> None:
    assert pointer(["a/b", "m~n", 0]) == "/a~1b/m~0n/0"
    assert pointer([]) == ""
