from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.runs import identity
from gateway.runs.identity import new_run_id, parse_event_id

ULID = re.compile(r"r_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def test_run_id_is_a_ulid() -> None:
    assert ULID.fullmatch(new_run_id())


def test_run_ids_of_one_moment_differ() -> None:
    ids = {new_run_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    # 80 random bits are the last 16 characters: each of them varies.
    assert all(len({run_id[at] for run_id in ids}) == 32 for at in range(-16, 0))


def test_run_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [10**18, 10**18 + 10**6, 10**18 + 10**9, 2 * 10**18]
    ids = []
    for moment in moments:
        monkeypatch.setattr(identity.time, "time_ns", lambda moment=moment: moment)
        ids.append(new_run_id())
    assert ids == sorted(ids)


def test_run_id_holds_the_unix_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    # The example of github.com/ulid/spec.
    monkeypatch.setattr(identity.time, "time_ns", lambda: 1469918176385 * 10**6)
    assert new_run_id().startswith("r_01ARYZ6S41")


@given(st.integers(0, 10**15 - 1))
def test_event_ids_parse_back(number: int) -> None:
    run_id = new_run_id()
    assert parse_event_id(f"{run_id}.{number}") == (run_id, number)
    assert parse_event_id(f"{run_id}.end") == (run_id, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.-1",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.END",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.1 ",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.1\n",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.1111111111111111",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.\u0661",
        "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3I.1",
        "x_01K3ZQ4M5N6P7Q8R9S0T1V2W3X.1",
    ],
)
def test_any_other_text_is_no_event_id(text: str) -> None:
    assert parse_event_id(text) is None
