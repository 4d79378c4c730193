from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from gateway.errors import CODES, PROBLEMS, Code, FieldError, GatewayError, ToolFailed

# Protocol, section 4.
HTTP_OF = {
    "OK": 200,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
STATUS_OF = {
    "invalid-arguments": 422,
    "not-acceptable": 406,
    "body-too-large": 413,
    "result-too-large": 413,
    "query-too-long": 414,
    "run-expired": 410,
    "pool-saturated": 503,
    "too-many-streams": 429,
    "queue-timeout": 503,
    "session-worker-unavailable": 409,
    "worker-timeout": 504,
}
SNAKEPIT_ATOMS = (
    "queue_timeout",
    "worker_timeout",
    "pool_not_found",
    "pool_saturated",
    "worker_busy",
    "session_worker_unavailable",
    "no_workers_available",
)


def test_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in Code} == {status.name: status.value[0] for status in grpc.StatusCode}


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_row_as_the_protocol_says(code: Code) -> None:
    row = CODES[code]
    assert row.http_status == HTTP_OF.get(code.name, 500)
    assert row.title
    assert 1000 <= row.ws_close <= 4999


@pytest.mark.parametrize(
    ("number", "code"), [(0, Code.OK), (14, Code.UNAVAILABLE), (17, Code.UNKNOWN), (-1, Code.UNKNOWN), (10**9, Code.UNKNOWN)]
)
def test_a_number_nobody_assigned_is_unknown(number: int, code: Code) -> None:
    assert Code.from_wire(number) is code


@pytest.mark.parametrize("slug", PROBLEMS)
def test_every_problem_makes_a_document_of_rfc_9457(slug: str) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", slug)
    error = GatewayError(slug, "what was wrong", errors=[FieldError("/a", "is required")])
    document = error.document("/v1/runs/r_1")
    assert document["type"] == f"/problems/{slug}"
    assert document["title"] == PROBLEMS[slug].title
    assert (document["status"], 400 <= document["status"] < 600) == (error.http_status, True)
    assert (document["detail"], document["instance"]) == ("what was wrong", "/v1/runs/r_1")
    assert document["code"] in Code.__members__
    assert isinstance(document["retryable"], bool)
    assert document["errors"] == [{"field": "/a", "detail": "is required"}]
    assert error.http_status == STATUS_OF.get(slug, error.http_status)


@pytest.mark.parametrize("atom", SNAKEPIT_ATOMS)
def test_every_error_atom_of_snakepit_has_a_problem_of_its_name(atom: str) -> None:
    assert atom.replace("_", "-") in PROBLEMS


def test_every_problem_that_the_code_raises_has_a_row() -> None:
    package = Path(__file__).resolve().parent.parent / "gateway"
    raised = {slug for path in package.rglob("*.py") for slug in re.findall(r'GatewayError\(\s*"([a-z-]+)"', path.read_text())}
    assert len(raised) > 20
    assert raised - set(PROBLEMS) == set()


def test_document_leaves_out_what_there_is_not() -> None:
    assert set(GatewayError("internal", "x").document()) == {"type", "title", "status", "detail", "code", "retryable"}


def test_a_tools_failure_has_the_status_of_its_own_code() -> None:
    error = ToolFailed(Code.PERMISSION_DENIED, "no", error_type="PermissionError", traceback="secret", details={"a": 1})
    document = error.document()
    assert (document["status"], document["code"], document["retryable"]) == (403, "PERMISSION_DENIED", False)
    assert (document["error_type"], document["details"]) == ("PermissionError", {"a": 1})
    assert "secret" not in str(document)
    assert error.raw == "no"
    assert ToolFailed(Code.UNAVAILABLE, "x").retryable
