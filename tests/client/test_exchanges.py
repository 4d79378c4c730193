from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.client import exchanges, requests
from gateway.client.errors import GatewayProblem, NotReachable, RunCancelled
from gateway.client.steps import Answer, Ask, Conversation, Deliver, Lost, Reply, Wait
from gateway.errors import GatewayError

CUT = Lost("http://g", "reset")


def play(conversation: Conversation[Any], *script: Reply) -> tuple[Any, list[requests.Request], list[Any], list[float]]:
    """Carry it out with these answers; return its result, what was asked, delivered, and waited."""
    answers, asked, delivered, waits = list(script), [], [], []
    reply: Reply = None
    while True:
        try:
            step = conversation.send(reply)
        except StopIteration as done:
            return done.value, asked, delivered, waits
        reply = None
        if isinstance(step, Ask):
            asked.append(step.request)
            reply = answers.pop(0)
        elif isinstance(step, Deliver):
            delivered += step.items
        elif isinstance(step, Wait):
            waits.append(step.seconds)


def ok(document: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, orjson.dumps(document))


def test_a_connection_given_up_meanwhile_is_asked_again_but_never_a_post() -> None:
    assert play(exchanges.document(requests.tools()), CUT, ok([]))[0] == []
    for request, answers in (
        (requests.tools(), [CUT, CUT]),
        (requests.call("add", {}, {}), [CUT]),
        (requests.tools(), [Lost("u", "refused", reached=False)]),
    ):
        with pytest.raises(NotReachable):
            play(exchanges.document(request), *answers)


@pytest.mark.parametrize(
    ("status", "body", "said"), [(200, b"<html>", "is this a gateway"), (502, b"<html>nginx", "nginx"), (404, b"", "HTTP 404")]
)
def test_what_is_no_gateways_answer_is_said(status: int, body: bytes, said: str) -> None:
    with pytest.raises(GatewayProblem, match=said) as caught:
        play(exchanges.document(requests.tools()), Answer(status, {}, body))
    assert caught.value.status == status


def test_runs_are_asked_for_in_pages_up_to_the_limit() -> None:
    pages = [ok({"runs": list(range(100)), "cursor": "c1"}), ok({"runs": list(range(100, 130)), "cursor": "c2"})]
    _, asked, delivered, _ = play(exchanges.runs(state="ok", tool=None, limit=130), *pages)
    assert delivered == list(range(130))
    assert [dict(request.query) for request in asked] == [{"state": "ok", "limit": "100"}, {"state": "ok", "cursor": "c1", "limit": "30"}]


def test_runs_without_a_limit_go_on_to_the_last_page() -> None:
    pages = [ok({"runs": [1], "cursor": "c1"}), ok({"runs": [2], "cursor": None})]
    assert play(exchanges.runs(state=None, tool="t", limit=None), *pages)[2] == [1, 2]


def test_a_result_is_waited_for() -> None:
    pending = ok({"state": "running"}, 202, preference_applied="wait=25")
    result, asked, _, waits = play(exchanges.result("r_1", None), pending, pending, ok({"result": 3, "metadata": {}}))
    assert (result, waits, dict(asked[0].headers)["Prefer"]) == (3, [], "wait=25")
    assert play(exchanges.result("r_1", None), ok({"chunks": [1, 2], "end": {}}))[0] == [1, 2]


def test_a_gateway_that_does_not_wait_is_not_asked_in_a_loop() -> None:
    assert play(exchanges.result("r_1", None), ok({}, 202), ok({"result": 1}))[3] == [1.0]


def test_a_result_that_does_not_come_in_time() -> None:
    now = iter([0.0, 0.0, 10.0])
    with pytest.raises(TimeoutError, match="has not ended within 10 s"):
        play(exchanges.result("r_1", 10.0, lambda: next(now)), ok({}, 202, preference_applied="wait=10"))


def test_a_result_of_a_run_that_failed_is_its_error() -> None:
    with pytest.raises(RunCancelled):
        play(exchanges.result("r_1", None), Answer(499, {}, orjson.dumps(GatewayError("cancelled", "x").document())))
