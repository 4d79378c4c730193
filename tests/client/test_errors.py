from __future__ import annotations

import pytest

from gateway.client import errors
from gateway.client.errors import GatewayProblem, NotFound, ToolFailed, Unauthenticated, Unavailable, problem_of
from gateway.errors import PROBLEMS, Code, FieldError, GatewayError
from gateway.errors import ToolFailed as ToolFailedThere


@pytest.mark.parametrize("slug", sorted(PROBLEMS))
def test_each_problem_type_has_a_class_of_its_own_in_its_codes_group(slug: str) -> None:
    error = problem_of(GatewayError(slug, "the detail").document())
    assert type(error).slug == slug
    assert isinstance(error, errors._BY_CODE.get(error.code, GatewayProblem)) or slug == "tool-error"
    assert (error.problem, error.detail, error.title, error.status) == (slug, "the detail", PROBLEMS[slug].title, error.status)
    assert type(error).__name__ in (errors.__doc__ or "")


def test_what_a_problem_says_is_kept() -> None:
    document = GatewayError("invalid-arguments", "two are wrong", errors=[FieldError("/a", "is no number")], extra={"more": 1}).document(
        "/x"
    )
    error = problem_of(document, retry_after_s=3.0)
    assert (error.errors, error.code, error.status, error.retryable, error.retry_after_s) == (
        (FieldError("/a", "is no number"),),
        Code.INVALID_ARGUMENT,
        422,
        False,
        3.0,
    )
    assert (error.document["more"], str(error)) == (1, "The arguments do not fit the tool's schema: two are wrong")


def test_a_tools_own_exception_keeps_its_type_code_and_details() -> None:
    error = problem_of(ToolFailedThere(Code.NOT_FOUND, "no table", error_type="ToolError", details={"tables": []}).document())
    assert isinstance(error, ToolFailed)
    assert (error.error_type, error.details, error.code) == ("ToolError", {"tables": []}, Code.NOT_FOUND)


def test_a_problem_of_a_younger_gateway_is_of_its_codes_group() -> None:
    younger = {"type": "/problems/moon-phase", "title": "Wrong moon", "status": 503, "code": "UNAVAILABLE"}
    assert (type(problem_of(younger)), problem_of(younger).problem) == (Unavailable, "moon-phase")


@pytest.mark.parametrize(("status", "kind"), [(401, Unauthenticated), (404, NotFound), (503, Unavailable), (418, GatewayProblem)])
def test_what_is_no_problem_document_is_judged_by_its_status(status: int, kind: type) -> None:
    assert type(problem_of({"title": "x", "status": status})) is kind
