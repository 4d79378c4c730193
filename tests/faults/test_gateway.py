"""The gateway itself stands still, is killed, has its clock set, or can't write its log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import JOURNAL_ADAPTER, Served, Story, read_sse, until, wait_for
from tests.faults.conftest import ODD_ADAPTER
from tests.faults.rawsocket import free_port
from tests.valkey import Valkey

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


async def story(gateway: Served, path: str) -> Story:
    async with gateway.http() as client, client.stream("GET", path) as response:
        assert response.status_code == 200, await response.aread()
        return await read_sse(response)


async def test_a_gateway_that_stood_still_goes_on_where_it_was(serve: Callable[..., Served], tag: str) -> None:
    """For longer than its health checks allow a worker: what it couldn't hear then is no miss of theirs."""
    checks = "health_interval_s = 0.3\nhealth_timeout_s = 0.3\nhealth_misses = 1\n"
    pool = f'[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nconcurrency = 8\n{checks}'
    gateway = serve(settings=pool)
    workers = gateway.workers()
    reading = asyncio.create_task(story(gateway, f"/v1/tools/held/stream?tag={tag}&count=2000&gate=1000"))
    await until(lambda: "start" in gateway.journal(tag), "the start")
    os.kill(gateway.pid, signal.SIGSTOP)
    gateway.open_gate(tag, 1000)
    # Time is the fault here: longer than a check and its answer may take.
    await asyncio.sleep(1.5)
    os.kill(gateway.pid, signal.SIGCONT)
    read = await reading
    assert (read.numbers, (read.end or {})["status"]) == (list(range(1, 2001)), "ok")
    assert gateway.workers() == workers


async def test_a_killed_gateways_clients_see_a_cut_and_its_port_is_free_for_the_next(serve: Callable[..., Served], tag: str) -> None:
    gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "2")
    reading = asyncio.create_task(story(gateway, f"/v1/tools/endless_async/stream?tag={tag}"))
    await until(lambda: "start" in gateway.journal(tag), "the start")
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.process.wait()
    # No `end`: the stream was cut, and says so by how it ends.
    with pytest.raises(httpx.RemoteProtocolError):
        await reading
    await until(lambda: not gateway.processes(), "its workers to go with it")
    again = serve(str(JOURNAL_ADAPTER), "--port", str(gateway.port))
    assert (await story(again, f"/v1/tools/numbered/stream?tag={tag}&count=3")).numbers == [1, 2, 3]


# the clock


@pytest.fixture
def clock(tmp_path: Path) -> tuple[dict[str, str], Callable[[str], object]]:
    """An environment whose wall clock a test sets ("+1d"); what measures time goes on as ever."""
    if not FAKETIME.exists():
        pytest.skip("libfaketime is not there (apt-get install faketime)")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return environment, offset.write_text


@pytest.mark.parametrize("log", ["memory", "valkey"])
async def test_a_clock_that_jumps_ends_nothing_and_expires_nothing(
    serve: Callable[..., Served], clock: tuple[dict[str, str], Callable[[str], object]], tag: str, log: str
) -> None:
    """A day forth and two back: streams, deadlines, sessions, leases and kept runs are measured, not dated."""
    environment, set_clock = clock
    with contextlib.ExitStack() as stack:
        url = "memory://"
        if log == "valkey":
            valkey = Valkey()
            stack.callback(valkey.close)
            url = valkey.url
        settings = f'[runlog]\nurl = "{url}"\nlease_ttl_s = 2\n[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nconcurrency = 16\n'
        gateway = serve(settings=settings, environment=environment)
        reading = asyncio.create_task(
            story(gateway, f"/v1/tools/paced/stream?tag={tag}&count=600&interval_ms=5&_timeout_ms=60000&_idle_timeout_ms=20000")
        )
        await until(lambda: "start" in gateway.journal(tag), "the start")
        async with gateway.http() as client:
            runs = []
            for number, jump in enumerate(("+0", "+1d", "-1d", "+0")):
                set_clock(jump)
                answer = await client.post("/v1/tools/numbered/runs?_session=s", json={"tag": f"{tag}-{number}", "count": 2})
                assert answer.status_code == 202, answer.text
                runs.append(answer.json()["run"])
                assert (await client.get("/readyz")).json()["status"] == "ready"
            assert len(set(runs)) == 4
            assert (await client.get("/v1/sessions/s")).status_code == 200
            for run in runs:
                answer = await client.get(f"/v1/runs/{run}/result", headers={"Prefer": "wait=10"})
                assert answer.status_code == 200, answer.text
            listed = {entry["run"] for entry in (await client.get("/v1/runs?limit=100")).json()["runs"]}
            assert set(runs) <= listed
        read = await reading
        assert (read.numbers, (read.end or {})["status"]) == (list(range(1, 601)), "ok")


# the log's disk


class Unlogged(Served):
    """A gateway whose output goes where nothing can be written."""

    def start(self, *, ready: bool = True, output: int = subprocess.DEVNULL) -> Unlogged:
        self.port, self.grpc_port = free_port(), 1
        command = [sys.executable, "-m", "gateway", "serve", "--port", str(self.port), "--grpc-address", "", *self._arguments]
        self.process = subprocess.Popen(
            command, cwd=self._folder, env=self._environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
        self.log.touch()
        self.client = httpx.Client(base_url=self.url, timeout=20, trust_env=False)
        wait_for(self._answers, "it to answer")
        wait_for(self.is_ready, "its workers")
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/livez").status_code == 200
        return False


@pytest.mark.parametrize("kind", ["full device", "closed pipe"])
async def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, kind: str) -> None:
    """Neither the gateway's own lines nor its workers' thousands; and a worker that is killed is replaced."""
    gateway = Unlogged(tmp_path, (str(ODD_ADAPTER), "--pool-size", "1"), "", {})
    if kind == "full device":
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        read, output = os.pipe()
        os.close(read)
    try:
        await asyncio.to_thread(gateway.start, output=output)
        for _ in range(2):
            assert (await story(gateway, "/v1/tools/chatter/stream")).numbers == [1, 2, 3]
            os.kill(gateway.workers()[0], signal.SIGKILL)
            await until(lambda: not gateway.is_ready(), "the loss")
            await until(gateway.is_ready, "the successor")
        read_to_end = await story(gateway, "/v1/tools/full/stream")
        assert (read_to_end.numbers, (read_to_end.end or {})["error"]["error_type"]) == ([1], "OSError")
        await asyncio.to_thread(gateway.stop)
    finally:
        os.close(output)
        gateway.kill()
