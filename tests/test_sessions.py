from __future__ import annotations

import pytest

from gateway.caller import ANONYMOUS, Caller
from gateway.errors import GatewayError
from gateway.sessions import Sessions, session_id_of, session_key


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def sessions(clock: Clock, ended: list[str]) -> Sessions:
    return Sessions(ttl_s=60, limit=3, on_end=ended.append, clock=clock)


def test_use_makes_a_session_and_keeps_it(sessions: Sessions, clock: Clock) -> None:
    made = sessions.use("a", ANONYMOUS, {"k": "v"})
    clock.now += 30
    assert sessions.use("a", ANONYMOUS, {"k": "other"}) is made
    assert (made.created_at, made.last_used_at, made.metadata) == (1000.0, 1030.0, {"k": "v"})


def test_session_ends_when_its_time_to_live_is_over(sessions: Sessions, clock: Clock, ended: list[str]) -> None:
    sessions.use("a", ANONYMOUS)
    clock.now += 59.9
    assert sessions.get("a", ANONYMOUS) is not None
    clock.now += 0.1
    assert sessions.get("a", ANONYMOUS) is None
    assert ended == ["a"]


@pytest.mark.parametrize(("touch", "alive"), [(True, True), (False, False)])
def test_get_begins_the_time_anew_only_when_asked(sessions: Sessions, clock: Clock, touch: bool, alive: bool) -> None:
    sessions.use("a", ANONYMOUS)
    clock.now += 40
    sessions.get("a", ANONYMOUS, touch=touch)
    clock.now += 40
    assert (sessions.get("a", ANONYMOUS) is not None) is alive


def test_a_full_table_drops_the_least_recently_used(sessions: Sessions, ended: list[str]) -> None:
    for name in ("a", "b", "c"):
        sessions.use(name, ANONYMOUS)
    sessions.use("a", ANONYMOUS)
    sessions.use("d", ANONYMOUS)
    assert ended == ["b"]
    assert len(sessions) == 3


def test_end_says_whether_there_was_one(sessions: Sessions, ended: list[str]) -> None:
    sessions.use("a", ANONYMOUS)
    assert (sessions.end("a", ANONYMOUS), sessions.end("a", ANONYMOUS), ended) == (True, False, ["a"])


def test_create_without_an_id_makes_a_fresh_valid_one(sessions: Sessions) -> None:
    first, second = sessions.create(None, ANONYMOUS), sessions.create(None, ANONYMOUS)
    assert first.id != second.id
    assert sessions.use(first.id, ANONYMOUS) is first


@pytest.mark.parametrize("session_id", ["", "a b", "a/b", "x" * 129, "é", "a\n"])
def test_an_id_outside_the_rule_is_refused(sessions: Sessions, session_id: str) -> None:
    with pytest.raises(GatewayError) as caught:
        sessions.use(session_id, ANONYMOUS)
    assert caught.value.problem == "invalid-session"
    assert len(sessions) == 0


def test_callers_who_choose_the_same_id_have_two_sessions(sessions: Sessions, ended: list[str]) -> None:
    ada, bob = Caller("key:ada"), Caller("key:bob")
    hers, his = sessions.use("a", ada, {"whose": "ada"}), sessions.use("a", bob)
    assert (hers.id, his.id, hers.key == his.key) == ("a", "a", False)
    assert (sessions.get("a", ada), sessions.get("a", ANONYMOUS)) == (hers, None)
    assert sessions.end("a", bob)
    assert (sessions.get("a", ada), ended) == (hers, [his.key])


def test_no_id_that_a_caller_chooses_is_anothers_key() -> None:
    key = session_key("a", "key:ada")
    assert session_key(key, "key:bob") != key != session_key("a", "key:bob")
    assert session_id_of(key, "key:ada") == "a"
    assert session_key("a", ANONYMOUS.id) == session_id_of("a", ANONYMOUS.id) == "a"
