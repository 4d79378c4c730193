from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Affinity
from gateway.errors import FieldError, GatewayError
from gateway.runs.policy import CANCEL, CONTINUE, Leaving, OnDisconnect, Overflow, parse_choice


def test_parse_choice_returns_the_member() -> None:
    assert parse_choice("_overflow", "latest", Overflow) is Overflow.LATEST


def test_parse_choice_of_anything_else_names_what_is_allowed() -> None:
    with pytest.raises(GatewayError) as caught:
        parse_choice("_affinity", "strict", Affinity)
    assert caught.value.problem == "invalid-option"
    assert caught.value.errors == (FieldError("_affinity", "is 'strict'; allowed: hint, strict_queue, strict_fail_fast"),)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("cancel", CANCEL),
        ("continue", CONTINUE),
        ("grace:30s", OnDisconnect(Leaving.GRACE, 30)),
        ("grace:500ms", OnDisconnect(Leaving.GRACE, 0.5)),
        ("grace:3600s", OnDisconnect(Leaving.GRACE, 3600)),
        ("grace:1ms", OnDisconnect(Leaving.GRACE, 0.001)),
    ],
)
def test_on_disconnect_is_read_and_says_itself_again(text: str, policy: OnDisconnect) -> None:
    assert OnDisconnect.parse("_on_disconnect", text, limit_s=3600) == policy
    assert str(policy) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stay",
        "grace",
        "grace:",
        "grace:0s",
        "grace:0ms",
        "grace:3601s",
        "grace:3600001ms",
        "grace:-1s",
        "grace:1.5s",
        "grace:1m",
        "grace:٣s",
    ],
)
def test_on_disconnect_of_anything_else_names_what_is_allowed(text: str) -> None:
    with pytest.raises(GatewayError) as caught:
        OnDisconnect.parse("_on_disconnect", text, limit_s=3600)
    assert caught.value.problem == "invalid-option"
    assert "cancel, continue, grace:<n>s or grace:<n>ms from 1 ms to 3600 s" in caught.value.detail


@given(st.integers(1, 3_600_000))
def test_every_grace_says_itself_again(milliseconds: int) -> None:
    policy = OnDisconnect.parse("_on_disconnect", f"grace:{milliseconds}ms", limit_s=3600)
    assert OnDisconnect.parse("_on_disconnect", str(policy), limit_s=3600) == policy
