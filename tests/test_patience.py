from __future__ import annotations

import asyncio

from gateway.patience import Patience
from tests.conftest import until


async def test_it_looks_at_the_earliest_moment_that_was_named() -> None:
    looks: list[float] = []
    patience = Patience(lambda now: looks.append(now))
    now = patience.time()
    patience.by(now + 30)
    patience.by(now + 0.02)
    patience.by(now + 20)
    await until(lambda: looks)
    assert now + 0.02 <= looks[0] < now + 20


async def test_it_looks_again_when_the_look_says_so() -> None:
    again = [0.01, 0.01, None]
    looks: list[float] = []

    def look(now: float) -> float | None:
        looks.append(now)
        wait_s = again.pop(0)
        return None if wait_s is None else now + wait_s

    Patience(look).by(0.0)
    await until(lambda: not again)
    assert looks == sorted(looks)
    assert len(looks) == 3


async def test_a_stopped_one_looks_no_more_until_it_is_asked_again() -> None:
    looks: list[float] = []
    patience = Patience(lambda now: looks.append(now))
    patience.by(patience.time())
    patience.stop()
    patience.stop()
    await asyncio.sleep(0.02)
    assert looks == []
    patience.by(patience.time())
    await until(lambda: looks)
