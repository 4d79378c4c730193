from __future__ import annotations

import pytest

from gateway.client import requests
from gateway.endpoints.options import RUN_OPTIONS


def test_options_are_those_of_the_protocol_and_times_are_milliseconds() -> None:
    options = {
        "pool": "gpu",
        "session_id": "s 1",
        "timeout_s": 1.5,
        "queue_timeout_s": 2,
        "first_chunk_timeout_s": 0.0001,
        "idle_timeout_s": 3,
        "affinity": "hint",
        "on_disconnect": "continue",
        "metadata": {"team": "a"},
        "overflow": None,
    }
    query = dict(requests.stream("train", {}, "key", options).query)
    assert query.pop("_meta.team") == "a"
    assert set(query) == set(RUN_OPTIONS)
    assert (query["_session"], query["_timeout_ms"], query["_first_chunk_timeout_ms"]) == ("s 1", "1500", "1")


def test_an_unknown_option_is_named_with_the_nearest() -> None:
    with pytest.raises(TypeError, match="'sesion_id' is no option here; did you mean session_id"):
        requests.call("add", {}, {"sesion_id": "s"})
    with pytest.raises(TypeError, match="'overflow'"):
        requests.start("train", {}, None, {"overflow": "latest"})


def test_names_are_quoted() -> None:
    assert requests.tool("a b?c").path == "/v1/tools/a%20b%3Fc"
    # A slash makes it a method of a gRPC service.
    assert requests.stream("p.S?/M#", {}, "k", {}).path == "/v1/rpc/p.S%3F/M%23"
    assert requests.cancel("../x").path == "/v1/runs/..%2Fx"


def test_a_readers_place_is_an_event_id_or_a_word() -> None:
    assert dict(requests.events("r_1", {"role": "observer"}, after=7).headers)["Last-Event-ID"] == "r_1.7"
    assert requests.events("r_1", {"role": "observer"}, begins="live").query == (("_role", "observer"), ("_from", "live"))


def test_a_call_may_be_silent_for_as_long_as_its_time_out() -> None:
    assert requests.call("add", {}, {"timeout_s": 100}).answer_s == 130.0
    assert requests.call("add", {}, {}).answer_s > 3600
