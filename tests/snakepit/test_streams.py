"""What the real worker was seen to send and to do in a stream, through the whole gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.workers.snakepit import THREADS
from tests.e2e.harness import Served, Story, bridge, events_of, read_sse, tool_request, until
from tests.snakepit.conftest import pool, stall, told


async def stream(gateway: Served, tool: str, query: str = "") -> Story:
    """Read a whole stream."""
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/{tool}/stream?{query}") as response:
        assert response.status_code == 200, await response.aread()
        return await read_sse(response)


async def end_of(gateway: Served, tool: str, query: str = "") -> dict[str, Any]:
    end = (await stream(gateway, tool, query)).end
    assert end is not None
    return end


async def test_chunks_come_in_order_and_the_empty_final_is_none(gateway: Served) -> None:
    story = await stream(gateway, "count", "n=500")
    assert story.chunks == [{"i": number} for number in range(500)]
    assert story.end is not None
    assert (story.end["status"], story.end["chunks"]) == ("ok", 500)
    assert story.end["metadata"]["worker_id"] == "snakepit-1"
    assert "synthetic_final" not in story.end["metadata"]


async def test_empty_generator_is_no_chunk_at_all(gateway: Served) -> None:
    story = await stream(gateway, "nothing")
    assert (story.chunks, story.end and story.end["status"]) == ([], "ok")


async def test_text_bytes_nothing_and_bare_nan_become_json_and_finals_end_nothing(gateway: Served) -> None:
    story = await stream(gateway, "shapes")
    assert story.chunks == [
        {"a": 1},
        "plain str é",
        {"$bytes": "AAH/"},
        None,
        [1, 2],
        7,
        None,
        {"x": None, "y": None},
        "[broken",
        True,
        "with metadata",
        {"last": "yes"},
        "after the final",
        {"final": 2},
    ]
    assert story.end is not None
    assert story.end["status"] == "ok"
    assert story.end["metadata"]["second"] == "yes"


async def test_raw_memory_of_an_array_is_bytes(gateway: Served) -> None:
    assert (await stream(gateway, "memory")).chunks == [{"$bytes": "AAAAAAAA4D8AAAAAAAD4Pw=="}]


@pytest.mark.parametrize(
    ("kind", "chunks"),
    [("dict", ["a", "b"]), ("text", ["h", "é"]), ("list", [1, "x"]), ("number", [5]), ("none", [None])],
)
async def test_any_iterable_is_iterated_and_a_value_is_one_chunk(gateway: Served, kind: str, chunks: list[Any]) -> None:
    assert (await stream(gateway, "iterable", f"kind={kind}")).chunks == chunks


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "name", "detail"),
        [("value", "ValueError", "boom"), ("key", "KeyError", "'boom'"), ("permission", "PermissionError", "boom")],
    )
    async def test_before_the_first_chunk_is_a_problem_with_the_exceptions_name(
        self, gateway: Served, kind: str, name: str, detail: str
    ) -> None:
        answer = gateway.client.get(f"/v1/tools/fail/stream?kind={kind}")
        problem = answer.json()
        assert (answer.status_code, problem["type"], problem["code"]) == (500, "/problems/tool-error", "INTERNAL")
        assert (problem["error_type"], problem["detail"]) == (name, detail)
        assert "traceback" not in answer.text.lower()
        assert "fake_adapters.py" not in answer.text

    async def test_after_two_chunks_comes_behind_them(self, gateway: Served) -> None:
        story = await stream(gateway, "fail", "kind=value&after=2")
        assert story.chunks == [{"i": 0}, {"i": 1}]
        assert story.end is not None
        assert (story.end["status"], story.end["error"]["error_type"]) == ("error", "ValueError")

    async def test_with_a_message_beyond_what_clients_take_by_default_arrives_whole(self, gateway: Served) -> None:
        end = await end_of(gateway, "fail", "kind=value&after=1&size=20000")
        assert end["error"]["detail"] == "boom" * 5000

    async def test_of_an_async_tool_that_json_has_no_form_for_is_said(self, gateway: Served) -> None:
        story = await stream(gateway, "unserialisable_async")
        assert (story.chunks, story.end and story.end["error"]["error_type"]) == ([1], "TypeError")

    async def test_over_the_second_transport_is_the_same(self, serve: Callable[..., Served]) -> None:
        gateway = serve('transport = "grpcio"\n' + pool())
        end = await end_of(gateway, "fail", "kind=value&after=1&size=20000")
        assert (end["error"]["error_type"], end["error"]["detail"]) == ("ValueError", "boom" * 5000)

    async def test_of_unary_tools_are_told_by_their_type(self, gateway: Served) -> None:
        answer = gateway.client.post("/v1/tools/refuse/call", json={"kind": "value"})
        assert (answer.status_code, answer.json()["error_type"]) == (400, "ValueError")
        assert gateway.client.post("/v1/tools/refuse/call", json={"kind": "key"}).json()["error_type"] == "KeyError"

    async def test_a_grpc_caller_gets_the_workers_own_message(self, gateway: Served) -> None:
        async with bridge(gateway) as stub:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"))
            answer = await stub.ExecuteTool(tool_request("s", "refuse", kind="value"))
            assert '"session_id": "s"' in answer.error_message, answer
            call = stub.ExecuteStreamingTool(tool_request("s", "fail", kind="value"))
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call.read()
        said = json.loads(failure.value.details() or "")
        # The caller's session, not the one that the gateway has with the worker: that is the worker's secret.
        assert (said["type"], said["context"]) == ("ValueError", {"tool_name": "fail", "session_id": "s"})


class TestSilence:
    async def test_on_a_chunk_that_json_has_no_form_for_ends_with_the_idle_time_out_and_says_what_it_may_be(self, gateway: Served) -> None:
        story = await stream(gateway, "unserialisable", "after=2&_idle_timeout_ms=300")
        assert story.chunks == [0, 1]
        assert story.end is not None
        assert (story.end["status"], story.end["error"]["deadline"]) == ("deadline", "idle")
        assert "the run's idle time-out; a Snakepit worker also falls silent for good when" in story.end["error"]["detail"]
        assert (await stream(gateway, "count")).chunks == [{"i": 0}, {"i": 1}, {"i": 2}]
        await until(gateway.is_idle, "the place to be free")

    async def test_is_bounded_by_the_pool_where_the_run_says_nothing(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(idle_timeout_s=0.4, concurrency=2))
        answer = gateway.client.get("/v1/tools/unserialisable/stream")
        assert answer.status_code == 504
        assert answer.json()["detail"].startswith("0.4 s passed without a chunk, the pool's idle time-out; a Snakepit worker")
        assert answer.json()["deadline"] == "idle"
        # The run's own wins, here by being longer.
        end = await end_of(gateway, "count", "n=2&pause_s=0.7&_idle_timeout_ms=5000")
        assert end["status"] == "ok"
        story = await stream(gateway, "count", "n=2&pause_s=1.2")
        assert (story.start or {})["idle_timeout_ms"] == 400
        assert (story.end or {})["error"]["deadline"] == "idle"


class TestSizes:
    async def test_chunk_over_grpcs_usual_limit_arrives(self, gateway: Served) -> None:
        async with gateway.http() as client:
            answer = await client.get("/v1/tools/large/stream?size=6000000", headers={"accept": "application/json"})
        assert answer.json()["chunks"] == ["x" * 6_000_000]

    async def test_chunk_over_the_workers_limit_is_told_as_one(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(), environment={"FAKE_SEND_LIMIT": "100000"})
        answer = gateway.client.get("/v1/tools/large/stream?size=200000")
        assert (answer.status_code, answer.json()["type"]) == (429, "/problems/chunk-too-large")


class TestCancellation:
    async def test_client_that_leaves_ends_the_generator_and_frees_the_place(self, gateway: Served, tmp_path: Path) -> None:
        before = told(gateway).count("finally")
        (tmp_path / "gate.chatty").touch()
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?gate={tmp_path}/gate") as response:
            async for event in events_of(response):
                if event.event == "message":
                    break
        await until(lambda: told(gateway).count("finally") == before + 1, "the generator's finally")
        await until(gateway.is_idle, "the place to be free")
        assert (await stream(gateway, "count")).end is not None

    async def test_client_that_leaves_an_async_tool_ends_it_in_its_await(self, gateway: Served) -> None:
        before = told(gateway).count("async finally")
        async with gateway.http() as client, client.stream("GET", "/v1/tools/ticking_async/stream?pause_s=30") as response:
            async for event in events_of(response):
                if event.event == "message":
                    break
        await until(lambda: told(gateway).count("async finally") == before + 1, "the generator's finally")
        await until(gateway.is_idle, "the place to be free")

    async def test_client_that_leaves_before_the_first_chunk_frees_the_place_at_once(self, gateway: Served) -> None:
        before = told(gateway).count("late finally")
        started = [line for line in told(gateway) if line.startswith("execute late ")]
        async with gateway.http() as client:
            request = asyncio.create_task(client.get("/v1/tools/late/stream?silent_s=1.5"))
            await until(lambda: len([line for line in told(gateway) if line.startswith("execute late ")]) > len(started), "the call")
            request.cancel()
        await until(gateway.is_idle, "the place to be free", 1.2)
        # A synchronous tool goes on until it next yields: nothing can interrupt it.
        assert told(gateway).count("late finally") == before
        await until(lambda: told(gateway).count("late finally") == before + 1, "the generator's finally")

    async def test_deadline_ends_the_tool_as_well(self, gateway: Served) -> None:
        before = told(gateway).count("async finally")
        end = await end_of(gateway, "ticking_async", "_timeout_ms=500")
        assert (end["status"], end["error"]["deadline"]) == ("deadline", "total")
        await until(lambda: told(gateway).count("async finally") == before + 1, "the generator's finally")
        await until(gateway.is_idle, "the place to be free")

    async def test_call_that_is_left_frees_its_place_while_its_thread_runs_to_its_end(self, gateway: Served) -> None:
        before = told(gateway).count("slept")
        started = told(gateway).count("adapter")
        async with gateway.http() as client:
            request = asyncio.create_task(client.post("/v1/tools/sleep/call", json={"s": 1.5}))
            await until(lambda: told(gateway).count("adapter") > started, "the call")
            request.cancel()
        await until(gateway.is_idle, "the place to be free", 1.2)
        await until(lambda: told(gateway).count("slept") == before + 1, "the thread's end")

    async def test_reader_that_stalls_is_cut_and_costs_the_worker_no_thread(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(stall_limit_bytes=500_000, concurrency=4))
        for _ in range(THREADS + 1):
            await stall(gateway, "pause_s=0.002")
        await until(lambda: told(gateway).count("flood over") == THREADS + 1, "the generators to be closed")
        # As many leaked threads would be all there are: nothing synchronous would run any more, and SIGTERM would not end it.
        assert gateway.client.post("/v1/tools/add/call", json={"a": 1}).json()["result"] == 3.0
        (worker,) = gateway.pools()["snakepit"]["workers"]
        assert worker["restarts"] == 0

    async def test_tool_that_never_pauses_may_cost_threads_and_its_worker_is_replaced_in_time(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(stall_limit_bytes=3_000_000, concurrency=4, terminate_timeout_s=1))
        for _ in range(THREADS + 1):
            await stall(gateway)
            assert gateway.client.post("/v1/tools/add/call", json={"a": 1}).json()["result"] == 3.0
        await until(lambda: gateway.pools()["snakepit"]["workers"][0]["restarts"] >= 1, "a new worker")
        assert "calls that were broken off may each have cost it a thread" in gateway.log.read_text()

    async def test_reader_that_wants_the_latest_is_never_cut(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool(stall_limit_bytes=100_000))
        async with gateway.http() as client, client.stream("GET", "/v1/tools/flood/stream?n=2000&_overflow=latest") as response:
            story = await read_sse(response)
        assert story.end is not None
        assert story.end["status"] == "ok"


class TestThreads:
    async def test_streams_beyond_the_workers_threads_wait_and_the_operator_was_warned(
        self, serve: Callable[..., Served], tmp_path: Path
    ) -> None:
        threads = THREADS
        gateway = serve(pool(concurrency=threads + 3))
        warnings = [line for line in gateway.log_lines() if line.get("event") == "a pool's concurrency is too high"]
        assert len(warnings) == 1
        assert f"more than {threads}" in warnings[0]["reason"]
        async with gateway.http() as client:
            runs = [
                (await client.post("/v1/tools/held/runs", json={"gate": str(tmp_path / "gate")})).headers["location"]
                for _ in range(threads + 3)
            ]
            states = lambda: [gateway.client.get(run).json()["chunks"] for run in runs]  # noqa: E731
            await until(lambda: sum(states()) == threads, "as many first chunks as there are threads")
            (tmp_path / "gate").touch()
            await until(lambda: all(gateway.client.get(run).json()["state"] == "ok" for run in runs), "all to end")
            assert states() == [2] * len(runs)

    async def test_one_call_at_once_is_the_default(self, serve: Callable[..., Served]) -> None:
        gateway = serve(pool())
        assert gateway.pools()["snakepit"]["workers"][0]["concurrency"] == 1
        assert not [line for line in gateway.log_lines() if "concurrency" in line.get("event", "")]


class TestPickle:
    async def test_opt_in_never_reaches_a_worker(self, gateway: Served) -> None:
        async with bridge(gateway) as stub:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="p"))
            request = tool_request("p", "accept")
            request.stream = False
            request.metadata["binary_format:blob"] = "pickle"
            request.metadata["color"] = "red"
            request.metadata["correlation_id"] = "c"
            request.binary_parameters["blob"] = b"cos\nsystem\n(S'false'\ntR."
            answer = await stub.ExecuteTool(request)
        result = json.loads(answer.result.value)
        assert result["type"] == "bytes"
        assert set(result["metadata"]) - {"correlation_id"} == {"color"}
        assert "unpickled blob" not in told(gateway)
        refused = gateway.client.get("/v1/tools/count/stream?_meta.binary_format:blob=pickle")
        assert refused.status_code == 400

    async def test_pickled_result_stays_bytes(self, gateway: Served) -> None:
        result = gateway.client.post("/v1/tools/pickled/call", json={}).json()["result"]
        assert list(result) == ["$bytes"]


async def test_requests_id_is_the_workers_correlation_id(gateway: Served) -> None:
    answer = gateway.client.post("/v1/tools/pid/call", json={}, headers={"x-request-id": "req-7"})
    assert answer.json()["result"]["correlation"] == "req-7"


async def test_sessions_of_callers_are_one_session_to_the_worker(gateway: Served) -> None:
    seen = {
        gateway.client.post("/v1/tools/pid/call", json={}, params={"_session": session}).json()["result"]["session"]
        for session in ("a", "b", "c")
    }
    assert len(seen) == 1
    assert seen.pop().startswith("gateway_snakepit-1_")
    assert len([line for line in told(gateway) if line.startswith("heartbeat ")]) == 1
