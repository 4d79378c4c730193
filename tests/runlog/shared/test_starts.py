"""Starts that all gateways count together, in a real Valkey that may go away."""

from __future__ import annotations

from structlog.testing import capture_logs

from gateway.runlog.shared.starts import SharedStarts
from tests.valkey import Valkey


async def test_two_gateways_count_together(valkey: Valkey) -> None:
    a, b = SharedStarts(valkey.url, "gw:"), SharedStarts(valkey.url, "gw:")
    answers = [await gateway.hit("alice", 3) for gateway in (a, b, a, b)]
    assert [answer and answer[:2] for answer in answers] == [(True, 2), (True, 1), (True, 0), (False, 0)]
    other = await b.hit("bob", 3)
    assert other is not None
    assert other[:2] == (True, 2)
    with valkey.client() as client:
        assert all(key.startswith(b"gw:limits") for key in client.scan_iter())
    await a.aclose()
    await b.aclose()


async def test_without_the_server_nobody_can_say_and_it_is_logged_once(valkey: Valkey) -> None:
    starts = SharedStarts(valkey.url, "gw:")
    assert await starts.hit("alice", 3) is not None
    valkey.kill()
    with capture_logs() as logs:
        assert [await starts.hit("alice", 3) for _ in range(2)] == [None, None]
        valkey.restart()
        assert await starts.hit("alice", 3) is not None
    assert [line["event"] for line in logs] == [
        "callers' starts are counted by each gateway alone",
        "callers' starts are counted by all gateways together again",
    ]
    await starts.aclose()
