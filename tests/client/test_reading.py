"""A reader's conversation, with the test as its shell: every answer, cut and wait is a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client import openings, requests
from gateway.client.errors import (
    ChunksLost,
    DeadlineExceeded,
    InvalidArguments,
    NotReachable,
    PoolSaturated,
    RunCancelled,
    RunExpired,
    RunNotFound,
    ShuttingDown,
    StreamLost,
    Unauthenticated,
)
from gateway.client.reading import Chunks, End, Gap, OnGap, Pulse, Reading, Start
from gateway.client.resume import NEVER, Resume
from gateway.client.steps import Answer, Close, Deliver, Lost, Open, Read, Reply, Wait
from gateway.errors import GatewayError

RUN = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"
START = b'id: %b.0\nevent: start\ndata: {"run":"%b","tool":"t","heartbeat_ms":4000}\n\n' % (RUN.encode(), RUN.encode())
CUT = Lost("http://g", "reset")
NOBODY = Lost("http://g", "refused", reached=False)
STREAM = Answer(200, {"content-type": "text/event-stream; charset=utf-8"})


def chunks(first: int, last: int, run: str = RUN) -> bytes:
    return b"".join(b"id: %b.%d\ndata: %d\n\n" % (run.encode(), n, n) for n in range(first, last + 1))


def end(status: str = "ok", count: int = 0, **more: Any) -> bytes:
    return b"id: %b.end\nevent: end\ndata: %b\n\n" % (RUN.encode(), orjson.dumps({"status": status, "chunks": count, **more}))


def gap(first: int, last: int) -> bytes:
    return b'event: gap\ndata: {"from":%d,"to":%d,"reason":"evicted"}\n\n' % (first, last)


def refused(problem: str, headers: Mapping[str, str] | None = None) -> Answer:
    error = GatewayError(problem, "because")
    return Answer(error.http_status, headers or {}, orjson.dumps(error.document()))


class Shell:
    """Plays what the network does: `script` holds what each Open, and each Read after it, is answered with."""

    def __init__(self, reading: Reading, *script: Reply) -> None:
        self.reading = reading
        self.script = list(script)
        self.items: list[Any] = []
        self.requests: list[requests.Request] = []
        self.waits: list[float] = []
        self.silences: list[float] = []
        self.closes = 0

    def play(self) -> Shell:
        conversation = self.reading.conversation()
        reply: Reply = None
        while True:
            try:
                step = conversation.send(reply)
            except StopIteration:
                return self
            reply = None
            if isinstance(step, Open):
                self.requests.append(step.request)
                self.silences.append(step.silence_s)
                reply = self.script.pop(0)
            elif isinstance(step, Read):
                reply = self.script.pop(0)
            elif isinstance(step, Wait):
                self.waits.append(step.seconds)
            elif isinstance(step, Close):
                self.closes += 1
            elif isinstance(step, Deliver):
                self.items += step.items

    @property
    def values(self) -> list[Any]:
        return [value for item in self.items if isinstance(item, Chunks) for value in item.values]

    def resumed_after(self) -> list[str | None]:
        """The Last-Event-ID of each request after the first."""
        return [dict(request.headers).get("Last-Event-ID") for request in self.requests[1:]]


def reading(on_gap: OnGap = "raise", resume: Resume | None = None, **options: Any) -> Reading:
    habits = openings.Habits(Pulse(), resume or Resume(attempts=4, first_s=0.1))
    return openings.stream(habits, "t", {"a": 1}, on_gap, None, options)


def joined(run: str = RUN, from_: str | int = "start", **options: Any) -> Reading:
    return openings.attach(openings.Habits(Pulse(), Resume(attempts=4, first_s=0.1)), run, from_, "raise", options)


def test_a_run_is_read_to_its_end() -> None:
    shell = Shell(reading(), STREAM, START + chunks(1, 2), chunks(3, 3) + end(count=3, metadata={"k": "v"}, timing={"total_ms": 5})).play()
    assert shell.values == [1, 2, 3]
    assert isinstance(shell.items[0], Start)
    assert shell.items[-1] is shell.reading.end
    found = shell.reading.end
    assert found is not None
    assert (found.status, found.chunks, found.metadata, found.timing) == ("ok", 3, {"k": "v"}, {"total_ms": 5})
    assert (shell.reading.run_id, shell.reading.last_event_id, shell.closes) == (RUN, f"{RUN}.3", 1)


@pytest.mark.parametrize("lost", [CUT, b""], ids=["reset", "ended without an end"])
def test_a_cut_is_resumed_after_the_last_chunk(lost: Reply) -> None:
    cut_in_a_chunk = chunks(3, 3)[:-4]
    shell = Shell(
        reading(overflow="latest"), STREAM, START + chunks(1, 2) + cut_in_a_chunk, lost, STREAM, START + chunks(3, 4) + end(count=4)
    ).play()
    assert shell.values == [1, 2, 3, 4]
    assert shell.resumed_after() == [f"{RUN}.2"]
    assert (shell.requests[1].path, shell.requests[1].query) == (f"/v1/runs/{RUN}/events", (("_overflow", "latest"),))
    assert shell.requests[1].method == "GET"


def test_a_cut_before_anything_was_read_sends_the_same_request_again() -> None:
    shell = Shell(reading(), CUT, STREAM, CUT, STREAM, START + end()).play()
    assert shell.requests[0] == shell.requests[1] == shell.requests[2]
    assert len(dict(shell.requests[0].headers)["Idempotency-Key"]) == 32


def test_a_cut_before_the_start_event_resumes_the_run_that_the_header_names() -> None:
    named = STREAM._replace(headers={**STREAM.headers, "content-location": f"/v1/runs/{RUN}/events"})
    shell = Shell(reading(), named, CUT, STREAM, START + end()).play()
    assert shell.resumed_after() == [f"{RUN}.0"]


def test_nobody_there_at_first_is_said_at_once_and_later_is_waited_for() -> None:
    with pytest.raises(NotReachable, match="http://g: refused"):
        Shell(reading(), NOBODY).play()
    shell = Shell(reading(), STREAM, START + chunks(1, 1), CUT, NOBODY, NOBODY, STREAM, chunks(2, 2) + end(count=2)).play()
    assert (shell.values, len(shell.waits)) == ([1, 2], 3)
    assert shell.waits == sorted(shell.waits)


def test_attempts_end_and_say_where_to_go_on() -> None:
    with pytest.raises(StreamLost, match=f"after {RUN}.1 and not resumed in 4 attempts: refused") as caught:
        Shell(reading(), STREAM, START + chunks(1, 1), CUT, NOBODY, NOBODY, NOBODY, NOBODY).play()
    assert (caught.value.last_event_id, caught.value.attempts) == (f"{RUN}.1", 4)


def test_a_client_that_never_resumes_says_so_at_the_first_cut() -> None:
    with pytest.raises(StreamLost, match="in 0 attempts"):
        Shell(reading(resume=NEVER), STREAM, START + chunks(1, 1), CUT).play()


def test_progress_between_two_cuts_begins_the_attempts_anew() -> None:
    script: list[Reply] = [STREAM, START + chunks(1, 1), CUT]
    for n in range(2, 12):
        script += [NOBODY, STREAM, chunks(n, n), CUT]
    shell = Shell(reading(), *script, STREAM, end(count=11)).play()
    assert shell.values == list(range(1, 12))


def test_the_servers_retry_and_retry_after_are_heeded() -> None:
    busy = refused("pool-saturated", {"retry-after": "9"})
    shell = Shell(reading(), STREAM, b"retry: 1500\n" + START, CUT, busy, STREAM, end()).play()
    assert 1.5 <= shell.waits[0] <= 1.875
    assert shell.waits[1] == 9.0


def test_a_refusal_of_the_first_request_is_raised_and_a_passing_one_of_a_later_is_not() -> None:
    with pytest.raises(PoolSaturated):
        Shell(reading(), refused("pool-saturated")).play()
    with pytest.raises(InvalidArguments):
        Shell(reading(), CUT, refused("invalid-arguments")).play()
    with pytest.raises(RunNotFound):
        Shell(joined(), refused("run-not-found")).play()
    bad_gateway = Answer(502, {}, b"<html>nginx</html>")
    assert Shell(reading(), STREAM, START, CUT, bad_gateway, STREAM, end()).play().reading.end is not None


def test_nothing_left_to_say_is_no_end() -> None:
    with pytest.raises(StreamLost, match="nothing more to say"):
        Shell(reading(), STREAM, START, CUT, Answer(204, {})).play()


@pytest.mark.parametrize(
    ("status", "problem", "kind"),
    [
        ("cancelled", "cancelled", RunCancelled),
        ("cancelled", None, RunCancelled),
        ("deadline", "worker-timeout", DeadlineExceeded),
        ("deadline", None, DeadlineExceeded),
        ("expired", "run-expired", RunExpired),
        ("shutdown", "shutting-down", ShuttingDown),
        ("shutdown", None, ShuttingDown),
        ("auth_expired", None, Unauthenticated),
    ],
)
def test_an_end_that_is_not_ok_is_raised_after_the_chunks(status: str, problem: str | None, kind: type[Exception]) -> None:
    error = {} if problem is None else {"error": GatewayError(problem, "because").document()}
    shell = Shell(reading(), STREAM, START + chunks(1, 2) + end(status, 2, **error))
    with pytest.raises(kind):
        shell.play()
    assert shell.values == [1, 2]
    assert isinstance(shell.items[-1], End)


def test_a_gap_is_raised_or_an_item_and_goes_on_behind_it() -> None:
    script = (STREAM, START + chunks(1, 1) + gap(2, 4) + chunks(5, 5) + end(count=5))
    refusing = Shell(reading(), *script)
    with pytest.raises(ChunksLost, match="chunks 2 to 4 can't be delivered: evicted") as caught:
        refusing.play()
    assert refusing.values == [1]
    assert (caught.value.first, caught.value.last, caught.value.reason) == (2, 4, "evicted")
    shell = Shell(reading("yield"), *script).play()
    assert (shell.values, [item for item in shell.items if isinstance(item, Gap)]) == ([1, 5], [Gap(2, 4, "evicted")])


def test_a_cut_behind_a_gap_resumes_behind_it() -> None:
    shell = Shell(reading("yield"), STREAM, START + gap(1, 4), CUT, STREAM, chunks(5, 5) + end(count=5)).play()
    assert (shell.values, shell.resumed_after()) == ([5], [f"{RUN}.4"])


@pytest.mark.parametrize("rest", [chunks(4, 4), end(count=3)], ids=["in the middle", "at the end"])
def test_a_hole_that_nobody_told_is_found(rest: bytes) -> None:
    with pytest.raises(ChunksLost, match="missing"):
        Shell(reading(), STREAM, START + chunks(1, 2), rest).play()


def test_chunks_that_come_again_are_passed_over() -> None:
    shell = Shell(reading(), STREAM, START + chunks(1, 3), CUT, STREAM, chunks(2, 3), chunks(2, 5) + end(count=5)).play()
    assert shell.values == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "text",
    [
        chunks(1, 1, run="r_other"),
        b"data: 1\n\n",
        b"id: %b.1\ndata: nonsense\n\n" % RUN.encode(),
        b"event: gap\ndata: {}\n\n",
        b"event: end\ndata: 5\n\n",
    ],
)
def test_what_cannot_be_read_is_said_and_not_tried_again(text: bytes) -> None:
    shell = Shell(reading(), STREAM, START + text)
    with pytest.raises(StreamLost, match="can't be read"):
        shell.play()
    assert len(shell.requests) == 1


def test_an_event_of_a_younger_gateway_is_passed_over() -> None:
    assert Shell(reading(), STREAM, START + b"event: weather\ndata: 5\n\n" + end()).play().values == []


def test_silence_is_measured_in_the_gateways_heartbeats() -> None:
    shell = Shell(reading(), STREAM, START, CUT, STREAM, end()).play()
    assert shell.silences == [25.0, 10.0]
    pulse = Pulse()
    pulse.learn(0.05)
    assert pulse.silence_s == 1.0


def test_a_run_of_its_own_has_a_grace_and_is_cancelled_by_name_until_its_end() -> None:
    own = reading()
    assert (("_on_disconnect", "grace:10s") in own._opening.query, own.farewell()) == (True, None)
    conversation = own.conversation()
    next(conversation)
    conversation.send(STREAM)
    conversation.send(START)
    assert own.farewell() == requests.cancel(RUN)
    conversation.send(None)
    conversation.send(end())
    assert own.farewell() is None


@pytest.mark.parametrize("policy", ["cancel", "continue", "grace:1s"])
def test_a_policy_that_the_caller_names_is_the_only_one(policy: str) -> None:
    said = reading(on_disconnect=policy)
    said.run_id = RUN
    assert ([value for name, value in said._opening.query if name == "_on_disconnect"], said.farewell()) == ([policy], None)


def test_a_run_that_others_may_have_joined_is_not_cancelled() -> None:
    shared = openings.stream(openings.Habits(Pulse(), NEVER), "t", {}, "raise", "my-key", {})
    shared.run_id = RUN
    assert (dict(shared._opening.headers)["Idempotency-Key"], shared.farewell()) == ("my-key", None)
    assert Shell(joined(), STREAM, START + end()).play().reading.farewell() is None


@pytest.mark.parametrize(
    ("run", "from_", "place"),
    [
        (RUN, "start", {"_from": "start"}),
        (RUN, "live", {"_from": "live"}),
        (RUN, 7, f"{RUN}.7"),
        (RUN, "7", f"{RUN}.7"),
        (f"{RUN}.7", "start", f"{RUN}.7"),
        (f"{RUN}.end", "start", {"_from": "start"}),
    ],
)
def test_a_run_is_joined_at_any_place(run: str, from_: str | int, place: Any) -> None:
    opening = joined(run, from_)._opening
    assert opening.path == f"/v1/runs/{RUN}/events"
    assert place in (dict(opening.query), dict(opening.headers).get("Last-Event-ID"))


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: start, live"):
        joined(from_="yesterday")


def test_who_joins_at_the_live_end_counts_from_the_first_chunk_that_comes() -> None:
    shell = Shell(
        joined(from_="live", role="observer"), STREAM, START, CUT, STREAM, chunks(40, 41), CUT, STREAM, chunks(42, 42) + end(count=42)
    ).play()
    assert (shell.values, shell.requests[1].query) == ([40, 41, 42], (("_role", "observer"), ("_from", "live")))
    assert shell.resumed_after() == [None, f"{RUN}.41"]


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 12), st.integers(1, 50))
def test_whatever_is_cut_and_wherever_every_chunk_comes_once(cuts: list[int], count: int, size: int) -> None:
    """A gateway that really resumes, behind a network that cuts after some bytes and delivers in fragments."""
    read = reading(resume=Resume(attempts=100, first_s=0.0))
    conversation = read.conversation()
    values: list[Any] = []
    left, budget, text = list(cuts), 0, b""
    reply: Reply = None
    while True:
        try:
            step = conversation.send(reply)
        except StopIteration:
            break
        reply = None
        if isinstance(step, Open):
            after = int(dict(step.request.headers).get("Last-Event-ID", f"{RUN}.0").rpartition(".")[2])
            text = START + chunks(after + 1, count) + end(count=count)
            budget = left.pop() * 7 if left else len(text)
            reply = STREAM
        elif isinstance(step, Read):
            part = text[: min(size, budget)]
            text, budget = text[len(part) :], budget - len(part)
            reply = part or CUT
        elif isinstance(step, Deliver):
            values += [value for item in step.items if isinstance(item, Chunks) for value in item.values]
    assert values == list(range(1, count + 1))
