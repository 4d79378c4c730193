"""Starts that two gateways on one log count together."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.pair import paired
from tests.valkey import Valkey

LIMITS = "[limits]\nstarts_per_minute = 3\ncount_loopback = true\n"


def test_a_caller_has_one_minutes_starts_on_all_gateways(tmp_path: Path) -> None:
    valkey = Valkey()
    try:
        with paired(valkey, tmp_path, LIMITS) as (a, b):
            answers = [gateway.client.post("/v1/tools/whoami/call", json={}) for gateway in (a, b, a, b)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert [answer.headers["ratelimit"].partition(";t")[0] for answer in answers] == [f'"starts";r={left}' for left in (2, 1, 0, 0)]
            assert answers[-1].json()["type"] == "/problems/quota-exceeded"
    finally:
        valkey.close()
