from __future__ import annotations

import pytest

from gateway.call import Affinity
from gateway.endpoints.options import READER_OPTIONS, STARTING_OPTIONS, OptionLimits, read_options, reader_from
from gateway.errors import GatewayError
from gateway.runs.policy import (
    CANCEL,
    CONTINUE,
    READ_ALL,
    Deadlines,
    Leaving,
    OnDisconnect,
    Overflow,
    ReaderOptions,
    Role,
    RunPolicy,
)

LIMITS = OptionLimits(timeout_s=300, timeout_limit_s=3600, meta_keys=frozenset({"tenant", "binary_format:x"}), lag_bytes=7)


def error_of(*options: tuple[str, str], grpc_timeout: str | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        read_options(options, LIMITS, grpc_timeout)
    assert (caught.value.problem, caught.value.http_status) == ("invalid-option", 400)
    assert len(caught.value.errors) == 1
    return caught.value


def test_no_options_are_the_defaults() -> None:
    options = read_options([], LIMITS)
    assert (options.session_id, options.pool, options.timeout_s, options.affinity, options.metadata) == (None, None, 300, None, {})
    assert options.policy == RunPolicy(CANCEL, Deadlines())
    assert options.reader == ReaderOptions(lag_bytes=7)
    assert (options.given, options.begins) == ((), None)


def test_every_option_is_read() -> None:
    given = {
        "_session": "s",
        "_pool": "p",
        "_timeout_ms": "1500",
        "_queue_timeout_ms": "30",
        "_first_chunk_timeout_ms": "40",
        "_idle_timeout_ms": "20",
        "_affinity": "strict_fail_fast",
        "_on_disconnect": "grace:2s",
        "_overflow": "latest",
        "_role": "observer",
        "_from": "live",
        "_meta.tenant": "acme",
    }
    options = read_options(given.items(), LIMITS)
    assert (options.session_id, options.pool, options.timeout_s, options.affinity) == ("s", "p", 1.5, Affinity.STRICT_FAIL_FAST)
    assert options.policy == RunPolicy(OnDisconnect(Leaving.GRACE, 2), Deadlines(queue_s=0.03, first_chunk_s=0.04, idle_s=0.02))
    assert options.reader == ReaderOptions(Role.OBSERVER, Overflow.LATEST, 7)
    assert options.begins == "live"
    assert {name for name, _ in options.given} == set(given) - {"_role", "_from"}
    assert options.metadata == {"tenant": "acme"}


def test_an_unknown_option_names_the_nearest_known_one() -> None:
    error = error_of(("_timeout", "5"))
    assert error.errors[0].field == "_timeout"
    assert "did you mean _timeout_ms?" in error.detail
    assert "_session, _pool" in error.detail


@pytest.mark.parametrize("name", ["_session", "_timeout_ms", "_meta.tenant"])
def test_an_option_given_twice_is_refused(name: str) -> None:
    assert "is given twice" in error_of((name, "1"), (name, "2")).detail


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "x", "3600001", "9" * 30, "٣", "+5"])
@pytest.mark.parametrize("name", ["_timeout_ms", "_queue_timeout_ms", "_first_chunk_timeout_ms", "_idle_timeout_ms"])
def test_a_time_out_is_a_whole_number_within_the_limit(name: str, value: str) -> None:
    error = error_of((name, value))
    assert (error.errors[0].field, "from 1 to 3600000" in error.detail) == (name, True)


@pytest.mark.parametrize("name", ["_affinity", "_on_disconnect", "_overflow", "_role"])
def test_a_choice_names_what_is_allowed(name: str) -> None:
    assert "allowed: " in error_of((name, "sometimes")).detail


@pytest.mark.parametrize(
    ("header", "timeout_s"), [("30S", 30), ("1H", 3600), ("2H", 3600), ("1M", 60), ("500m", 0.5), ("5u", 5e-6), ("99999999n", 0.099999999)]
)
def test_grpc_timeout_is_read_and_cut_to_the_limit(header: str, timeout_s: float) -> None:
    assert read_options([], LIMITS, header).timeout_s == pytest.approx(timeout_s)


def test_the_option_goes_before_grpc_timeout() -> None:
    assert read_options([("_timeout_ms", "7")], LIMITS, "30S").timeout_s == 0.007


@pytest.mark.parametrize("header", ["", "30", "S", "123456789S", "0S", "-1S", "1s", "1.5S"])
def test_a_wrong_grpc_timeout_is_refused(header: str) -> None:
    assert error_of(grpc_timeout=header).errors[0].field == "Grpc-Timeout"


@pytest.mark.parametrize("key", ["other", "", "binary_format:x"])
def test_metadata_is_for_the_keys_that_the_settings_allow(key: str) -> None:
    assert "allowed keys" in error_of((f"_meta.{key}", "pickle")).detail


def test_metadata_values_are_bounded() -> None:
    assert "the limit is 4096" in error_of(("_meta.tenant", "x" * 4097)).detail


def test_a_kind_of_request_may_mean_another_policy_when_it_names_none() -> None:
    assert read_options([], LIMITS, on_disconnect=CONTINUE).policy.on_disconnect == CONTINUE
    assert read_options([("_session", "s")], LIMITS, on_disconnect=CONTINUE).policy.on_disconnect == CONTINUE
    assert read_options([("_on_disconnect", "cancel")], LIMITS, on_disconnect=CONTINUE).policy.on_disconnect == CANCEL


@pytest.mark.parametrize(("name", "names"), [("_timeout_ms", READER_OPTIONS), ("_from", STARTING_OPTIONS), ("_role", STARTING_OPTIONS)])
def test_an_option_of_another_kind_of_request_is_refused(name: str, names: tuple[str, ...]) -> None:
    with pytest.raises(GatewayError, match=f"{name} has no meaning for this kind of request; known here: {names[0]}"):
        read_options([(name, "1")], LIMITS, names=names)


def test_metadata_is_no_readers_option() -> None:
    with pytest.raises(GatewayError, match=r"_meta\.tenant is no option; known: _from, _role, _overflow"):
        read_options([("_meta.tenant", "x")], LIMITS, names=READER_OPTIONS)


@pytest.mark.parametrize(
    ("begins", "options"),
    [
        (None, READ_ALL),
        ("start", READ_ALL),
        ("live", ReaderOptions(live=True)),
        ("0", ReaderOptions(after=0)),
        ("17", ReaderOptions(after=17)),
    ],
)
def test_from_says_where_a_reader_begins(begins: str | None, options: ReaderOptions) -> None:
    assert reader_from(READ_ALL, begins) == options


@pytest.mark.parametrize("begins", ["", "-1", "1.5", "end", "٣", "9" * 16])
def test_from_of_anything_else_names_what_is_allowed(begins: str) -> None:
    with pytest.raises(GatewayError, match="allowed: start, live, a chunk's number, or an event id"):
        reader_from(READ_ALL, begins)
