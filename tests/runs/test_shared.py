"""What SharedRuns does where nobody waits for it; the rest is seen between processes, in tests/e2e/test_two_gateways.py."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
import structlog

from gateway.errors import GatewayError
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runs.hub import Hub
from gateway.runs.shared import SharedRuns
from tests.conftest import Serve, until
from tests.valkey import Valkey


@pytest.mark.parametrize(
    "failure", [GatewayError("log-unavailable", "gone"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")]
)
async def test_a_question_that_nobody_waits_for_fails_alone(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    runs = SharedRuns(cast(Hub, object()), "valkey://127.0.0.1:1", "g", SharedLogOptions(), session_ttl_s=60)

    async def fail(*given: object) -> None:
        raise failure

    monkeypatch.setattr(runs.log, "session_settle", fail)
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(runs.run())
        await asyncio.sleep(0)
        runs.settle("s", "default", "default-1")
        await until(lambda: any(line["event"] == "session's home not noted" and line["session"] == "s" for line in lines))
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_gateway_listens_when_its_log_is_there(serve: Serve) -> None:
    valkey = Valkey()
    try:
        async with serve(runlog={"url": valkey.url}) as running:
            assert running.gateway.shared is not None
            assert running.gateway.shared.log.available
    finally:
        valkey.close()


async def test_a_gateway_listens_without_its_log(serve: Serve) -> None:
    async with serve(runlog={"url": "valkey://127.0.0.1:1"}) as running:
        assert (await running.client.get("/livez")).status_code == 200
