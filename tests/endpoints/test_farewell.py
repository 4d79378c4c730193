"""Streams that are cut all at once: each client is told a time of its own to come back."""

from __future__ import annotations

import re

from gateway.caller import ANONYMOUS
from tests.conftest import Serve
from tests.endpoints.conftest import raw


async def test_readers_that_are_cut_are_told_times_of_their_own(serve: Serve) -> None:
    async with serve(first_byte_hold_s=0, retry_ms=1000) as running:
        first = await raw(running, "GET", "/v1/tools/count/stream")
        call = await running.pool.next_call()
        call.send(1)
        streams = [first, *[await raw(running, "GET", f"/v1/runs/{call.run_id}/events") for _ in range(7)]]
        for stream in streams:
            await stream.until(b"data: 1\n\n")
        for reader in running.gateway.hub.get(call.run_id, ANONYMOUS).readers:
            reader.cut = True
            reader.wake()
        times = []
        for stream in streams:
            said = re.search(rb"retry: (\d+)\n", await stream.rest())
            assert said is not None
            times.append(int(said[1]))
    assert all(500 <= time <= 1500 for time in times)
    assert len(set(times)) > 1
