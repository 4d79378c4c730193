"""Who asks, as an ASGI scope says it."""

from __future__ import annotations

from typing import Any

from gateway.caller import ANONYMOUS, SCOPE_KEY, Caller, caller_of


def test_an_anonymous_caller_is_made_once_a_request_and_has_its_address() -> None:
    scope: dict[str, Any] = {"client": ("10.0.0.7", 40000)}
    caller = caller_of(scope)
    assert (caller, caller.address, caller.grants) == (ANONYMOUS, "10.0.0.7", ANONYMOUS.grants)
    assert caller_of(scope) is caller


def test_a_caller_without_an_address_is_anybody() -> None:
    assert caller_of({"client": None}) is ANONYMOUS


def test_who_was_admitted_is_left_as_it_is() -> None:
    alice = Caller("alice")
    assert caller_of({SCOPE_KEY: alice, "client": ("10.0.0.7", 40000)}) is alice
