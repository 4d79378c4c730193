"""What can go wrong, and how each front door says it: HTTP before the first byte, SSE after it, WebSocket, gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import websockets

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.harness import DEMO_ADAPTER, JOURNAL_ADAPTER, Served, bridge, events_of, read_ndjson, read_sse, tool_request, until

PROBLEM = "application/problem+json"


async def sse_end(gateway: Served, path: str) -> dict[str, Any]:
    async with gateway.http() as client, client.stream("GET", path) as response:
        assert response.status_code == 200, await response.aread()
        story = await read_sse(response)
    assert story.end is not None
    return story.end


async def socket_answer(gateway: Served, tool: str, arguments: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """All frames about one subscription; the socket has to live on afterwards."""
    url = f"ws://127.0.0.1:{gateway.port}/v1/ws"
    async with websockets.connect(url, subprotocols=[websockets.Subprotocol("snakepit.gateway.v1")]) as socket:
        await socket.send('{"type":"connection_init"}')
        await socket.recv()
        await socket.send(json.dumps({"type": "subscribe", "id": "a", "payload": {"tool": tool, "args": arguments, **options}}))
        frames = [json.loads(await socket.recv())]
        while frames[-1]["type"] not in ("complete", "error"):
            frames.append(json.loads(await socket.recv()))
        await socket.send('{"type":"ping"}')
        assert json.loads(await socket.recv()) == {"type": "pong"}
    return frames


async def grpc_failure(
    gateway: Served, tool: str, timeout: float | None = None, **arguments: Any
) -> tuple[list[Any], grpc.aio.AioRpcError]:
    chunks: list[Any] = []

    async def read() -> None:
        async for chunk in call:
            chunks.append(json.loads(chunk.data))  # noqa: PERF401 - what came before the failure counts

    async with bridge(gateway) as stub:
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="failures"))
        call = stub.ExecuteStreamingTool(tool_request("failures", tool, **arguments), timeout=timeout)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await read()
    return chunks, failure.value


class TestToolThatRaises:
    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            ("value", 400, "INVALID_ARGUMENT"),
            ("missing", 404, "NOT_FOUND"),
            ("denied", 403, "PERMISSION_DENIED"),
            ("timeout", 504, "DEADLINE_EXCEEDED"),
            ("other", 500, "INTERNAL"),
        ],
    )
    async def test_before_the_first_chunk_is_a_real_http_status(self, gateway: Served, error: str, status: int, code: str) -> None:
        async with gateway.http() as client:
            answer = await client.get(f"/v1/tools/may_fail/stream?after=0&error={error}")
        problem = answer.json()
        assert answer.status_code == status
        assert answer.headers["content-type"] == PROBLEM
        assert (problem["code"], problem["status"], problem["type"]) == (code, status, "/problems/tool-error")
        assert "failed after 0 chunks" in problem["detail"]
        assert "traceback" not in problem

    async def test_after_the_first_chunk_is_the_end_event(self, gateway: Served) -> None:
        async with gateway.http() as client, client.stream("GET", "/v1/tools/may_fail/stream?after=2&error=value") as response:
            assert response.status_code == 200
            story = await read_sse(response)
        assert story.chunks == [{"step": 1}, {"step": 2}]
        assert story.end is not None
        assert story.end["status"] == "error"
        assert story.end["chunks"] == 2
        assert story.end["error"]["code"] == "INVALID_ARGUMENT"
        assert story.end["error"]["error_type"] == "ValueError"

    async def test_json_answer_is_the_problem_with_the_chunks_before_it(self, gateway: Served) -> None:
        async with gateway.http() as client:
            answer = await client.get("/v1/tools/may_fail/stream?after=1&error=missing", headers={"Accept": "application/json"})
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
        assert answer.json()["chunks"] == [{"step": 1}]

    async def test_websocket_gets_an_error_frame_and_stays_open(self, gateway: Served) -> None:
        frames = await socket_answer(gateway, "may_fail", {"after": 1, "error": "denied"})
        assert [frame["type"] for frame in frames] == ["start", "next", "error"]
        assert frames[-1]["payload"]["code"] == "PERMISSION_DENIED"

    async def test_grpc_gets_the_chunks_then_the_status(self, gateway: Served) -> None:
        chunks, failure = await grpc_failure(gateway, "may_fail", after=2, error="value")
        assert chunks == [{"step": 1}, {"step": 2}]
        assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "failed after 2 chunks" in str(failure.details())

    async def test_debug_mode_shows_the_traceback(self, serve: Callable[..., Served]) -> None:
        gateway = serve(str(DEMO_ADAPTER), "--debug", "--pool-size", "1")
        problem = gateway.client.get("/v1/tools/may_fail/stream?after=0").json()
        assert "may_fail" in problem["traceback"]
        assert "RuntimeError" in problem["traceback"]


class TestWrongRequest:
    CASES = (
        # path, status, problem, what the errors name
        ("/v1/tools/nothing/stream", 404, "tool-not-found", []),
        ("/v1/tools/add/stream?a=1&b=2", 501, "tool-not-streaming", []),
        ("/v1/tools/stream_numbers/stream?count=many", 422, "invalid-arguments", ["/count"]),
        ("/v1/tools/stream_numbers/stream?count=1&kount=2", 422, "invalid-arguments", ["/kount"]),
        ("/v1/tools/process_items/stream", 422, "invalid-arguments", ["/items"]),
        ("/v1/tools/numbered/stream?count=x&other=1", 422, "invalid-arguments", ["/tag", "/count", "/other"]),
        ("/v1/tools/stream_numbers/stream?_timeout=1", 400, "invalid-option", ["_timeout"]),
        ("/v1/tools/stream_numbers/stream?_pool=nowhere", 404, "pool-not-found", []),
    )

    @pytest.mark.parametrize(("path", "status", "problem", "fields"), CASES)
    async def test_http_answers_a_problem(self, gateway: Served, path: str, status: int, problem: str, fields: list[str]) -> None:
        async with gateway.http() as client:
            answer = await client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
        assert answer.json()["type"] == f"/problems/{problem}"
        assert sorted(entry["field"] for entry in answer.json().get("errors", [])) == sorted(fields)

    @pytest.mark.parametrize(
        ("tool", "arguments", "problem"),
        [
            ("nothing", {}, "tool-not-found"),
            ("add", {"a": 1, "b": 2}, "tool-not-streaming"),
            ("stream_numbers", {"count": "many"}, "invalid-arguments"),
            ("process_items", {}, "invalid-arguments"),
            ("stream_numbers", {"kount": 1}, "invalid-arguments"),
        ],
    )
    async def test_websocket_answers_an_error_frame(self, gateway: Served, tool: str, arguments: dict[str, Any], problem: str) -> None:
        frames = await socket_answer(gateway, tool, arguments)
        assert [frame["type"] for frame in frames] == ["error"]
        assert frames[0]["payload"]["type"] == f"/problems/{problem}"

    async def test_plain_websocket_says_the_problem_and_closes(self, gateway: Served) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/tools/nothing/ws") as socket:
            event = json.loads(await socket.recv())
            with pytest.raises(websockets.ConnectionClosedError):
                await socket.recv()
            assert socket.close_code == 4400
        assert (event["event"], event["data"]["error"]["type"]) == ("end", "/problems/tool-not-found")

    @pytest.mark.parametrize(
        ("tool", "arguments", "code"),
        [
            ("nothing", {}, grpc.StatusCode.NOT_FOUND),
            ("add", {"a": 1, "b": 2}, grpc.StatusCode.UNIMPLEMENTED),
            ("stream_numbers", {"count": "many"}, grpc.StatusCode.INVALID_ARGUMENT),
            ("process_items", {}, grpc.StatusCode.INVALID_ARGUMENT),
            ("stream_numbers", {"kount": 1}, grpc.StatusCode.INVALID_ARGUMENT),
        ],
    )
    async def test_grpc_answers_a_status(self, gateway: Served, tool: str, arguments: dict[str, Any], code: grpc.StatusCode) -> None:
        chunks, failure = await grpc_failure(gateway, tool, **arguments)
        assert chunks == []
        assert failure.code() is code

    async def test_streaming_tool_has_no_single_result(self, gateway: Served) -> None:
        async with gateway.http() as client:
            answer = await client.post("/v1/tools/stream_numbers/call", json={})
        assert (answer.status_code, answer.json()["type"]) == (501, "/problems/tool-streams")

    async def test_limits_name_themselves(self, serve: Callable[..., Served]) -> None:
        settings = "[server]\nbody_limit_bytes = 1000\nquery_limit_bytes = 500\nargument_depth_limit = 5\nopen_runs_limit = 1\n"
        gateway = serve(str(JOURNAL_ADAPTER), "--concurrency", "8", settings=settings)
        async with gateway.http() as client:
            path = "/v1/tools/numbered/stream"
            too_large = await client.post(path, json={"tag": "x" * 2000})
            too_long = await client.get(f"{path}?tag={'x' * 600}")
            too_deep = await client.post(path, json={"tag": [[[[[[1]]]]]]})
            async with client.stream("GET", "/v1/tools/endless/stream?tag=limits"):
                too_many = await client.get(f"{path}?tag=limits&count=1")
        answers = [(answer.status_code, answer.json()["type"]) for answer in (too_large, too_long, too_deep, too_many)]
        assert answers == [
            (413, "/problems/body-too-large"),
            (414, "/problems/query-too-long"),
            (400, "/problems/invalid-body"),
            (429, "/problems/too-many-streams"),
        ]
        assert "retry-after" in too_many.headers


class TestDeadline:
    async def test_before_the_first_chunk_is_504(self, gateway: Served, tag: str) -> None:
        async with gateway.http() as client:
            answer = await client.get(f"/v1/tools/silent/stream?tag={tag}&_timeout_ms=150")
        assert (answer.status_code, answer.json()["type"]) == (504, "/problems/worker-timeout")
        await until(lambda: gateway.journal(tag) == ["start", "finally", "cleanup"], "the tool's end")

    async def test_grpc_timeout_header_is_a_deadline_too(self, gateway: Served, tag: str) -> None:
        async with gateway.http() as client:
            answer = await client.get(f"/v1/tools/silent/stream?tag={tag}", headers={"Grpc-Timeout": "150m"})
        assert answer.status_code == 504

    async def test_after_chunks_is_the_end_event(self, gateway: Served, tag: str) -> None:
        end = await sse_end(gateway, f"/v1/tools/endless_async/stream?tag={tag}&_timeout_ms=300")
        assert (end["status"], end["error"]["code"]) == ("deadline", "DEADLINE_EXCEEDED")
        assert end["chunks"] > 0
        await until(lambda: gateway.journal(tag) == ["start", "finally", "cleanup"], "the tool's end")

    async def test_websocket_gets_an_error_frame(self, gateway: Served, tag: str) -> None:
        frames = await socket_answer(gateway, "silent", {"tag": tag}, timeout_ms=150)
        assert (frames[-1]["type"], frames[-1]["payload"]["code"]) == ("error", "DEADLINE_EXCEEDED")

    async def test_grpc_client_deadline_ends_the_tool(self, gateway: Served, tag: str) -> None:
        _, failure = await grpc_failure(gateway, "endless", timeout=0.4, tag=tag)
        assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: gateway.journal(tag) == ["start", "finally", "cleanup"], "the tool's end")

    async def test_unary_call_is_504(self, gateway: Served, tag: str) -> None:
        async with gateway.http() as client:
            answer = await client.post("/v1/tools/wait/call?_timeout_ms=150", json={"tag": tag})
        assert answer.status_code == 504
        await until(lambda: gateway.journal(tag) == ["start", "finally", "cleanup"], "the tool's end")

    async def test_idle_timeout_ends_a_silent_stream(self, gateway: Served, tag: str) -> None:
        end = await sse_end(gateway, f"/v1/tools/gated/stream?tag={tag}&_idle_timeout_ms=200")
        assert (end["status"], end["chunks"]) == ("deadline", 1)


class TestFullPool:
    """One worker with one place, which a stream holds for the length of each test."""

    async def answers(self, gateway: Served, tag: str) -> tuple[Any, Any, Any]:
        """What HTTP, WebSocket and gRPC say to one request more than there is room for."""
        async with gateway.http() as client:
            answer = await client.get(f"/v1/tools/numbered/stream?tag={tag}&count=1")
        frames = await socket_answer(gateway, "numbered", {"tag": tag, "count": 1})
        _, failure = await grpc_failure(gateway, "numbered", tag=tag, count=1)
        return answer, frames, failure

    async def test_without_queue_is_saturated(self, serve: Callable[..., Served], tag: str) -> None:
        settings = f'[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nqueue_limit = 0\n'
        gateway = serve(settings=settings)
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/endless/stream?tag={tag}"):
            answer, frames, failure = await self.answers(gateway, tag)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/pool-saturated")
        assert int(answer.headers["retry-after"]) >= 1
        assert frames[-1]["payload"]["type"] == "/problems/pool-saturated"
        assert failure.code() is grpc.StatusCode.UNAVAILABLE

    async def test_queue_takes_one_and_times_out(self, serve: Callable[..., Served], tag: str) -> None:
        settings = f'[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nqueue_limit = 1\nqueue_timeout_s = 0.5\n'
        gateway = serve(settings=settings)
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/endless/stream?tag={tag}"):
            waiting = asyncio.ensure_future(client.get(f"/v1/tools/numbered/stream?tag={tag}&count=1"))
            await until(lambda: gateway.pools()["default"]["queued"] == 1, "a queued request")
            saturated = await client.get(f"/v1/tools/numbered/stream?tag={tag}&count=1")
            assert (saturated.status_code, saturated.json()["type"]) == (503, "/problems/pool-saturated")
            timed_out = await waiting
            assert (timed_out.status_code, timed_out.json()["type"]) == (503, "/problems/queue-timeout")
            answer, frames, failure = await self.answers(gateway, tag)
        assert answer.json()["type"] == "/problems/queue-timeout"
        assert [frame["type"] for frame in frames] == ["start", "status", "error"]
        assert frames[1]["payload"]["state"] == "queued"
        assert failure.code() is grpc.StatusCode.UNAVAILABLE
        assert gateway.journal(tag).count("start") == 1

    async def test_queued_request_is_told_its_place_and_runs_when_there_is_room(self, serve: Callable[..., Served], tag: str) -> None:
        gateway = serve(settings=f'[server]\nfirst_byte_hold_s = 0.1\n[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\n')
        async with gateway.http() as client:
            async with client.stream("GET", f"/v1/tools/endless/stream?tag={tag}"):
                waiting = client.build_request("GET", f"/v1/tools/numbered/stream?tag={tag}&count=2")
                response = await client.send(waiting, stream=True)
                events = events_of(response)
                assert (await anext(events)).event == "start"
                queued = (await anext(events)).json()
            rest = [event async for event in events]
            await response.aclose()
        assert queued == {"state": "queued", "position": 1, "depth": 1, "pool": "default"}
        assert [event.event for event in rest] == ["status", "message", "message", "end"]
        assert rest[0].json()["state"] == "running"
        assert rest[-1].json()["status"] == "ok"


class TestLostWorker:
    async def test_killed_mid_stream_fails_every_front_door_and_the_pool_recovers(self, serve: Callable[..., Served], tag: str) -> None:
        gateway = serve(settings=f'[[pools]]\nadapter = "{JOURNAL_ADAPTER}"\nsize = 1\nconcurrency = 8\n')
        path = f"/v1/tools/gated/stream?tag={tag}"
        async with gateway.http() as client, client.stream("GET", path) as sse:
            events = events_of(sse)
            first = [await anext(events), await anext(events)][-1].json()
            lines = asyncio.ensure_future(self.lines(gateway, path))
            frames = asyncio.ensure_future(socket_answer(gateway, "gated", {"tag": tag}))
            call = asyncio.ensure_future(grpc_failure(gateway, "gated", tag=tag))
            silent = asyncio.ensure_future(client.get(f"/v1/tools/silent/stream?tag={tag}"))
            unary = asyncio.ensure_future(client.post("/v1/tools/wait/call", json={"tag": tag}))
            await until(lambda: gateway.journal(tag).count("start") == 6, "six calls on the worker")
            os.kill(first["pid"], signal.SIGKILL)
            end = [event async for event in events][-1].json()
            assert (end["status"], end["error"]["code"], end["error"]["type"]) == ("error", "UNAVAILABLE", "/problems/worker-lost")
            assert (await lines)["error"]["type"] == "/problems/worker-lost"
            assert (await frames)[-1]["payload"]["type"] == "/problems/worker-lost"
            assert (await call)[1].code() is grpc.StatusCode.UNAVAILABLE
            assert ((await silent).status_code, (await unary).status_code) == (503, 503)
            after = await client.post("/v1/tools/whoami/call", json={})
        assert after.status_code == 200, after.text
        assert after.json()["result"]["pid"] != first["pid"]
        assert gateway.pools()["default"]["workers"][0]["restarts"] == 1

    async def lines(self, gateway: Served, path: str) -> dict[str, Any]:
        async with gateway.http() as client, client.stream("GET", path, headers={"Accept": "application/x-ndjson"}) as response:
            story = await read_ndjson(response)
        assert story.end is not None
        return story.end

    async def test_next_request_goes_to_another_worker(self, serve: Callable[..., Served], tag: str) -> None:
        gateway = serve(str(JOURNAL_ADAPTER), "--pool-size", "2")
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?tag={tag}") as response:
            events = events_of(response)
            victim = [await anext(events), await anext(events)][-1].json()["pid"]
            os.kill(victim, signal.SIGKILL)
            answer = await client.post("/v1/tools/whoami/call", json={})
            assert answer.json()["result"]["pid"] != victim
            assert [event.event async for event in events] == ["end"]

    async def test_adapter_that_does_not_start_shows_its_last_words(self, serve: Callable[..., Served], tag: str) -> None:
        gateway = serve("json:JSONDecoder", "--pool-size", "1", ready=False)

        def said() -> str:
            answer = gateway.client.get("/readyz")
            assert answer.status_code == 503
            return answer.text

        await until(lambda: "exited with code" in said(), "the reason")
        assert "JSONDecoder" in said()
        assert gateway.client.get("/livez").status_code == 200
        assert gateway.client.get("/v1/tools/x/stream").status_code in (404, 503)
