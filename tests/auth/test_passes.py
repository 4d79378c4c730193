"""Signed stand-ins for credentials: good for what their credential is good for, and no longer."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from gateway.auth.keys import KeyRing, line_of, new_secret, read_keys
from gateway.auth.passes import Passes
from gateway.auth.scopes import read_scopes
from gateway.auth.tickets import Tickets, UsedTickets
from gateway.caller import Caller
from gateway.errors import GatewayError
from tests.auth.conftest import Clock

SECRET = "a secret of more than thirty-two characters"


def ring(*lines: str) -> KeyRing:
    return KeyRing(read_keys("\n".join(lines)))


def refusal(passes: Passes, text: str) -> str:
    with pytest.raises(GatewayError) as caught:
        passes.read(text)
    return caught.value.problem


def test_a_tokens_pass_carries_what_the_token_granted_until_it_expires() -> None:
    passes = Passes("session", SECRET, ring())
    caller = Caller("jwt:ada", read_scopes(["tools:a", "metrics"]), time.time() + 60)
    read = passes.read(passes.write(caller, {"more": 1}))
    assert (read.caller, read.more) == (caller, {"more": 1})
    assert abs(read.signed_at - time.time()) < 5
    assert passes.read(passes.write(caller, {}, time.time() + 3600)).caller.expires_at == caller.expires_at


def test_an_expired_pass_says_so() -> None:
    passes = Passes("session", SECRET, ring())
    assert refusal(passes, passes.write(Caller("jwt:ada"), {}, time.time() - 1)) == "auth-expired"


def test_a_keys_pass_is_good_while_the_key_is_in_force_with_what_it_grants_now() -> None:
    secret = new_secret()
    keys = ring(line_of("ci", secret, ["tools:a"]))
    passes = Passes("session", SECRET, keys)
    caller = keys.find(secret)
    assert caller is not None
    text = passes.write(caller, {}, time.time() + 60)
    assert secret not in text
    keys.replace(read_keys(line_of("ci", secret, ["tools:b"])))
    assert passes.read(text).caller.grants == read_scopes(["tools:b"])
    keys.replace(read_keys(line_of("ci", new_secret(), ["tools:b"])))
    assert refusal(passes, text) == "invalid-credential"


def test_who_came_with_a_key_that_is_not_in_force_any_more_gets_no_pass() -> None:
    """A request may have begun before the keys were read again; what the key granted would outlive it."""
    secret = new_secret()
    keys = ring(line_of("ci", secret, ["tools:a"]))
    caller = keys.find(secret)
    assert caller is not None
    keys.replace([])
    with pytest.raises(GatewayError, match="not in force any more"):
        Tickets(SECRET, keys).give(caller, "/v1/ws")


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: "x" + text, lambda _: "", lambda _: "a.b.c", lambda _: "x" * 9000])
def test_a_pass_that_was_changed_is_refused(change: object) -> None:
    passes = Passes("session", SECRET, ring())
    assert refusal(passes, change(passes.write(Caller("jwt:ada"), {}))) == "invalid-credential"  # type: ignore[operator]


def test_a_pass_is_for_one_purpose_and_one_secret() -> None:
    text = Passes("session", SECRET, ring()).write(Caller("jwt:ada"), {})
    for other in (Passes("ticket", SECRET, ring()), Passes("session", SECRET + "x", ring()), Passes("session", None, ring())):
        assert refusal(other, text) == "invalid-credential"


def test_gateways_with_one_secret_take_each_others_passes() -> None:
    text = Passes("session", SECRET, ring()).write(Caller("jwt:ada"), {})
    assert Passes("session", SECRET, ring()).read(text).caller.id == "jwt:ada"


def test_a_ticket_has_a_number_a_path_and_an_age(clock: Clock) -> None:
    clock.now = time.time() + 30
    tickets = Tickets(SECRET, ring(), clock=clock)
    caller = Caller("jwt:ada", expires_at=time.time() + 60)
    first, second = (tickets.read(tickets.give(caller, "/v1/ws")) for _ in range(2))
    assert first.number != second.number
    assert (first.path, first.caller) == ("/v1/ws", replace(caller, ticket=first.number))
    assert 25 < first.age_s < 35


async def test_a_ticket_is_used_once_and_forgotten_when_it_could_not_be_used_any_more(clock: Clock) -> None:
    uses = UsedTickets(clock=clock)
    assert [await uses.use_ticket(name, 60) for name in ("a", "b", "a")] == [True, True, False]
    clock.now += 61
    assert await uses.use_ticket("c", 60)
    assert list(uses._used) == ["c"]


async def test_too_many_tickets_in_a_minute_are_refused_for_now(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.auth.tickets.USED_LIMIT", 2)
    uses = UsedTickets(clock=clock)
    assert [await uses.use_ticket(name, 60) for name in "ab"] == [True, True]
    with pytest.raises(GatewayError, match="Too many tickets"):
        await uses.use_ticket("c", 60)
    clock.now += 61
    assert await uses.use_ticket("c", 60)
