"""Which worker gets a call: sessions, named pools, workers that somebody else runs, recycling."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.harness import DEMO_ADAPTER, JOURNAL_ADAPTER, ROOT, Served, bridge, events_of, read_sse, tool_request, until, wait_for


def whoami(gateway: Served, query: str = "") -> tuple[int, str]:
    answer = gateway.client.post(f"/v1/tools/whoami/call{query}", json={})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]["pid"], answer.json()["metadata"]["worker_id"]


class TestSessions:
    def test_session_stays_on_its_worker(self, serve: Callable[..., Served]) -> None:
        gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "3")
        assert len({whoami(gateway) for _ in range(9)}) == 3
        homes = {session: {whoami(gateway, f"?_session={session}") for _ in range(5)} for session in "abc"}
        assert [len(workers) for workers in homes.values()] == [1, 1, 1]

    def test_session_reaches_the_adapter(self, gateway: Served) -> None:
        answer = gateway.client.post("/v1/tools/whoami/call?_session=mine", json={})
        assert answer.json()["result"]["session"] == "mine"
        assert gateway.client.get("/v1/sessions/mine").status_code == 200
        assert gateway.client.delete("/v1/sessions/mine").status_code == 204

    def test_busy_home_means_another_worker_waiting_or_refusal(self, serve: Callable[..., Served], tag: str) -> None:
        gateway = serve(settings=f'[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 2\nqueue_timeout_s = 0.3\n')
        home = whoami(gateway, "?_session=s")
        with gateway.client.stream("GET", f"/v1/tools/endless/stream?tag={tag}&_session=s") as response:
            # Kept: a generator that is collected closes the response.
            body = response.iter_bytes()
            next(body)
            path = "/v1/tools/whoami/call?_session=s&_affinity="
            queued = gateway.client.post(f"{path}strict_queue", json={})
            refused = gateway.client.post(f"{path}strict_fail_fast", json={})
            elsewhere = whoami(gateway, "?_session=s&_affinity=hint")
        assert (queued.status_code, queued.json()["type"]) == (503, "/problems/queue-timeout")
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/worker-busy")
        assert elsewhere != home

    def test_lost_home_is_a_conflict_for_strict_sessions(self, serve: Callable[..., Served]) -> None:
        gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "2")
        pid, _ = whoami(gateway, "?_session=s")
        os.kill(pid, signal.SIGKILL)
        path = "/v1/tools/whoami/call?_session=s&_affinity="
        wait_for(lambda: pid not in gateway.workers(), "the worker's end")
        wait_for(lambda: gateway.client.post(f"{path}strict_queue", json={}).status_code == 409, "the loss to be noticed")
        refused = gateway.client.post(f"{path}strict_fail_fast", json={})
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/session-worker-unavailable")
        assert whoami(gateway, "?_session=s")[0] != pid


class TestNamedPools:
    def test_pool_option_chooses_among_pools_with_the_same_tool(self, serve: Callable[..., Served]) -> None:
        pools = "".join(f'[[pools]]\nname = "{name}"\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\n' for name in ("first", "second"))
        gateway = serve(settings=pools)
        assert whoami(gateway)[1] == "first-1"
        assert whoami(gateway, "?_pool=second")[1] == "second-1"

    def test_several_adapters_on_the_command_line_are_pools_of_their_own(self, serve: Callable[..., Served]) -> None:
        gateway = serve(str(JOURNAL_ADAPTER), str(DEMO_ADAPTER), "--pool-size", "1")
        assert list(gateway.pools()) == ["adapter", "ml_streaming"]
        assert len(gateway.client.get("/v1/tools").json()["tools"]) > 15
        assert gateway.client.post("/v1/tools/add/call", json={"a": 1, "b": 1}).json()["result"] == 2

    def test_pool_environment_reaches_the_worker_and_gateway_settings_do_not(self, serve: Callable[..., Served], tmp_path: Path) -> None:
        adapter = tmp_path / "environment.py"
        adapter.write_text(
            "import os\nfrom gateway import BaseAdapter, tool\nclass Env(BaseAdapter):\n    @tool(description='')\n"
            "    def read(self, name: str):\n        return os.environ.get(name)\n"
        )
        settings = f'[[pools]]\nadapter = "{adapter}"\nsize = 1\nenv = {{ COLOUR = "green" }}\n'
        gateway = serve(settings=settings, environment={"GATEWAY_LOG__LEVEL": "info"})
        names = ("COLOUR", "GATEWAY_LOG__LEVEL")
        answers = [gateway.client.post("/v1/tools/read/call", json={"name": name}).json()["result"] for name in names]
        assert answers == ["green", None]


@contextlib.contextmanager
def worker_by_hand(address: str, directory: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that no gateway has started."""
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "gateway.runtime", "--adapter", str(JOURNAL_ADAPTER), "--listen", address, *arguments]
    environment = os.environ | {"E2E_DIRECTORY": str(directory), "SNAKEPIT_READY_FILE": str(directory / "ready")}
    with (directory / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for((directory / "ready").exists, "the worker's ready file")
        yield process
    finally:
        process.terminate()
        process.wait(20)
        (directory / "ready").unlink(missing_ok=True)


class TestAddresses:
    async def test_workers_run_by_others_serve_and_come_back(self, serve: Callable[..., Served], tmp_path: Path, tag: str) -> None:
        directory = tmp_path / "worker"
        address = f"unix:{tmp_path}/w.sock"
        settings = f'[[pools]]\nname = "remote"\naddresses = ["{address}"]\nhealth_interval_s = 0.1\n'
        with worker_by_hand(address, directory, "--concurrency", "4") as process:
            gateway = serve(settings=settings)
            worker = gateway.pools()["remote"]["workers"][0]
            assert (worker["state"], worker["address"], worker["concurrency"]) == ("ready", address, 4)
            async with gateway.http() as client, client.stream("GET", f"/v1/tools/numbered/stream?tag={tag}&count=10") as response:
                assert [chunk["n"] for chunk in (await read_sse(response)).chunks] == list(range(1, 11))
            async with gateway.http() as client, client.stream("GET", f"/v1/tools/endless/stream?tag={tag}") as response:
                events = events_of(response)
                await anext(events)
                process.kill()
                end = [event async for event in events][-1].json()
            assert end["error"]["type"] == "/problems/worker-lost"
            await until(lambda: gateway.client.get("/readyz").status_code == 503, "the loss to be noticed")
        with worker_by_hand(address, directory):
            await until(lambda: gateway.client.get("/readyz").status_code == 200, "the worker's return")
            assert gateway.client.post("/v1/tools/whoami/call", json={}).status_code == 200

    def test_tcp_address_works_too(self, serve: Callable[..., Served], tmp_path: Path) -> None:
        directory = tmp_path / "worker"
        with worker_by_hand("127.0.0.1:0", directory) as process:
            said = (directory / "ready").read_text().strip()
            address = f"127.0.0.1:{said}" if said.isdigit() else said
            gateway = serve(settings=f'[[pools]]\nname = "remote"\naddresses = ["{address}"]\n')
            assert whoami(gateway) == (process.pid, "remote-1")


class TestRecycling:
    async def test_worker_is_replaced_after_its_requests_without_cutting_a_stream(self, serve: Callable[..., Served], tag: str) -> None:
        gateway = serve(settings=f'[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nconcurrency = 8\nmax_requests = 10\n')
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?tag={tag}") as response:
            events = events_of(response)
            old = [await anext(events), await anext(events)][-1].json()["pid"]
            pids = [whoami(gateway)[0]]
            while pids[-1] == old:
                pids.append(whoami(gateway)[0])
                await asyncio.sleep(0.02)
            assert old in gateway.workers(), "the old worker still has a stream"
            gateway.open_gate(tag, 2, 3)
            rest = [event async for event in events]
        assert rest[-1].json()["status"] == "ok"
        assert {event.json().get("pid", old) for event in rest} == {old}
        await until(lambda: old not in gateway.workers(), "the old worker's end")

    async def test_tool_that_ignores_its_cancellation_costs_its_worker(
        self, serve: Callable[..., Served], tmp_path: Path, tag: str
    ) -> None:
        adapter = tmp_path / "stubborn_adapter.py"
        adapter.write_text(
            JOURNAL_ADAPTER.read_text() + "\n    @tool(description='', supports_streaming=True)\n    def stubborn(self):\n"
            "        yield 1\n        time.sleep(3600)\n        yield 2\n"
        )
        gateway = serve(settings=f'[[pools]]\nadapter = "{adapter}"\nsize = 1\nstop_timeout_s = 0.3\ndrain_timeout_s = 0.3\n')
        before = whoami(gateway)[0]
        async with gateway.http() as client, client.stream("GET", "/v1/tools/stubborn/stream") as response:
            async for event in events_of(response):
                if event.event == "message":
                    break
        await until(lambda: before not in gateway.workers(), "the worker's replacement")
        assert whoami(gateway)[0] != before
        assert gateway.pools()["default"]["stuck"] == 1


async def test_grpc_session_and_http_session_share_a_worker(gateway: Served) -> None:
    async with bridge(gateway) as stub:
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="shared"))
        answer = await stub.ExecuteTool(tool_request("shared", "whoami"))
    assert answer.success
    assert f'"pid":{whoami(gateway, "?_session=shared")[0]}' in answer.result.value.decode()
