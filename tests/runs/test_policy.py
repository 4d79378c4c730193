from __future__ import annotations

import pytest

from gateway.call import Affinity
from gateway.errors import FieldError, GatewayError
from gateway.runs.policy import OnDisconnect, parse_choice


def test_parse_choice_returns_the_member() -> None:
    assert parse_choice("_on_disconnect", "cancel", OnDisconnect) is OnDisconnect.CANCEL


def test_parse_choice_of_anything_else_names_what_is_allowed() -> None:
    with pytest.raises(GatewayError) as caught:
        parse_choice("_affinity", "strict", Affinity)
    assert caught.value.problem == "invalid-option"
    assert caught.value.errors == (FieldError("_affinity", "is 'strict'; allowed: hint, strict_queue, strict_fail_fast"),)
