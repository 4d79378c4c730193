"""What a client asks besides streams, as conversations (steps.py): a document, pages of runs, a result that is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.call import is_rpc
from gateway.client import requests
from gateway.client.errors import NotReachable, problem_of
from gateway.client.requests import Request
from gateway.client.steps import Answer, Ask, Conversation, Deliver, Lost, Wait

_PAGE_LIMIT = 100
# Between two looks at a run whose gateway doesn't wait for it.
_PAUSE_S = 1.0


def answered(request: Request) -> Conversation[Answer]:
    """Send a request; return its answer.

    Raises:
        NotReachable: there is none.
    """
    answer = yield Ask(request)
    if isinstance(answer, Lost) and answer.reached and request.method != "POST":
        # A connection that was kept and that the other side has given up just now; to ask again changes nothing.
        answer = yield Ask(request)
    if isinstance(answer, Lost):
        raise NotReachable(answer.url, answer.detail)
    assert isinstance(answer, Answer)
    return answer


def document(request: Request) -> Conversation[Any]:
    """Send a request; return the JSON document of its answer.

    Raises:
        NotReachable: there is none.
        GatewayProblem: the gateway says what is wrong.
    """
    answer = yield from answered(request)
    return answer.document()


def member(request: Request, name: str) -> Conversation[Any]:
    """Send a request; return one member of the JSON object of its answer. Raises as `document`."""
    found = yield from document(request)
    return found[name]


def called(name: str, arguments: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Conversation[Any]:
    """Execute a unary tool; return its result, of a method its answer. Raises as `document`."""
    found = yield from document(requests.call(name, arguments, options))
    return found if is_rpc(name) else found["result"]


def tool(name: str, pool: str | None) -> Conversation[dict[str, Any]]:
    """Return a tool's description; of a method, as its service has it, with its message's schema as `parameters`.

    Raises:
        NotReachable, GatewayProblem: as `document`; `rpc-not-found` where the service has no such method.
    """
    found: dict[str, Any] = yield from document(requests.tool(name, pool))
    if not is_rpc(name):
        return found
    wanted = name.partition("/")[2]
    method = next((method for method in found["methods"] if method["name"] == wanted), None)
    if method is None:
        names = ", ".join(method["name"] for method in found["methods"])
        problem = {"type": "/problems/rpc-not-found", "title": "No such method of a gRPC service", "status": 404, "code": "NOT_FOUND"}
        raise problem_of({**problem, "detail": f"service {found['name']} has no method {wanted!r}; there are: {names}"})
    return {**method, "name": name, "pool": found["pool"], "parameters": method["request_schema"]}


def runs(*, state: str | None, tool: str | None, limit: int | None) -> Conversation[None]:
    """Deliver the newest runs, at most `limit` of them, a page at a time. Raises as `document`."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = _PAGE_LIMIT if left is None else min(left, _PAGE_LIMIT)
        page = yield from document(requests.runs(state=state, tool=tool, limit=size, cursor=cursor))
        yield Deliver(page["runs"])
        cursor = page["cursor"]
        if cursor is None:
            return
        left = None if left is None else left - len(page["runs"])


def result(run_id: str, timeout_s: float | None, now: Callable[[], float] = time.monotonic) -> Conversation[Any]:
    """Wait for a run's end; return its single result, or the list of its chunks.

    Raises:
        TimeoutError: it has not ended within `timeout_s`; it goes on.
        NotReachable, GatewayProblem: as `document`; the run's own failure among them.
    """
    deadline = None if timeout_s is None else now() + timeout_s
    while True:
        left = None if deadline is None else deadline - now()
        wait_s = requests.WAIT_S if left is None else max(0, min(requests.WAIT_S, round(left)))
        answer = yield from answered(requests.result(run_id, wait_s))
        if answer.status != 202:
            found = answer.document()
            return found["chunks"] if "chunks" in found else found["result"]
        left = None if deadline is None else deadline - now()
        if left is not None and left <= 0:
            raise TimeoutError(f"run {run_id} has not ended within {timeout_s:g} s")
        if "preference-applied" not in answer.headers:
            yield Wait(_PAUSE_S if left is None else min(_PAUSE_S, left))
