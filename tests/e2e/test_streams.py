"""One tool, every front door: the same chunks, the same numbers, the same decorated end; each chunk as it happens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import websockets

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.harness import ROOT, Served, bridge, events_of, read_ndjson, read_sse, story_of, tool_request, wait_for

TRAIN = "/v1/tools/train_with_progress/stream"
DECORATION = {"execution_time_ms", "tool_type", "worker_id"}


@pytest.fixture(autouse=True)
def idle_afterwards(gateway: Served) -> Iterator[None]:
    """Nothing runs on when a test is over."""
    yield
    wait_for(gateway.is_idle, f"idle pools: {gateway.pools()}")


def curl(gateway: Served, *arguments: str) -> str:
    done = subprocess.run(["curl", "-sN", *arguments], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def check_training(chunks: list[Any], end: dict[str, Any], epochs: int) -> None:
    assert [chunk.get("epoch") for chunk in chunks] == [*range(1, epochs + 1), None]
    assert chunks[-1]["status"] == "complete"
    assert end["status"] == "ok"
    assert end["chunks"] == epochs + 1
    assert set(end["metadata"]) == DECORATION
    assert end["metadata"]["worker_id"].startswith("demo-")


class TestCurl:
    def test_get_prints_start_chunks_and_decorated_end(self, gateway: Served) -> None:
        text = curl(gateway, f"{gateway.url}{TRAIN}?epochs=3")
        blocks = text.rstrip("\n").split("\n\n")
        fields = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
        start = json.loads(fields[0]["data"])
        assert fields[0]["retry"] == "100"
        assert fields[0]["event"] == "start"
        assert [event["id"] for event in fields] == [f"{start['run']}.{number}" for number in (0, 1, 2, 3, 4, "end")]
        assert [event.get("event") for event in fields[1:]] == [None, None, None, None, "end"]
        check_training([json.loads(event["data"]) for event in fields[1:-1]], json.loads(fields[-1]["data"]), 3)

    def test_post_prints_the_same(self, gateway: Served) -> None:
        text = curl(gateway, "-d", '{"epochs": 1}', "-H", "Content-Type: application/json", gateway.url + TRAIN)
        data = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
        check_training(data[1:-1], data[-1], 1)

    def test_ndjson_is_an_object_a_line(self, gateway: Served) -> None:
        text = curl(gateway, "-H", "Accept: application/x-ndjson", f"{gateway.url}{TRAIN}?epochs=1")
        story = story_of([json.loads(line) for line in text.splitlines() if line])
        assert story.numbers == [1, 2]
        assert story.end is not None
        check_training(story.chunks, story.end, 1)

    def test_json_is_one_document(self, gateway: Served) -> None:
        document = json.loads(curl(gateway, "-H", "Accept: application/json", f"{gateway.url}{TRAIN}?epochs=1"))
        check_training(document["chunks"], document["end"], 1)


class TestCommandLine:
    def command(self, gateway: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gateway", *arguments, "--url", gateway.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT)

    def test_stream_prints_a_value_a_line_and_the_end_on_stderr(self, gateway: Served) -> None:
        done = self.command(gateway, "stream", "stream_numbers", "count=3")
        assert done.returncode == 0
        assert [json.loads(line)["number"] for line in done.stdout.splitlines()] == [0, 1, 2]
        assert "ok: 3 chunks" in done.stderr

    def test_stream_json_prints_every_event(self, gateway: Served) -> None:
        done = self.command(gateway, "stream", "stream_numbers", "count=2", "--json")
        story = story_of([json.loads(line) for line in done.stdout.splitlines()])
        assert story.start is not None
        assert story.numbers == [1, 2]
        assert story.end is not None
        assert story.end["status"] == "ok"

    def test_failed_run_exits_1(self, gateway: Served) -> None:
        done = self.command(gateway, "stream", "may_fail", "after=1", "error=value")
        assert done.returncode == 1
        assert done.stdout.splitlines() == ['{"step":1}']
        assert "failed after 1 chunks" in done.stderr

    def test_call_prints_the_result(self, gateway: Served) -> None:
        done = self.command(gateway, "call", "add", "a=1", "b=2.5")
        assert (done.returncode, done.stdout.strip()) == (0, "3.5")

    def test_tools_lists_the_catalogue(self, gateway: Served) -> None:
        done = self.command(gateway, "tools", "--json")
        names = {entry["name"]: entry["supports_streaming"] for entry in json.loads(done.stdout)["tools"]}
        assert names["train_with_progress"] is True
        assert names["add"] is False

    def test_nobody_there_exits_3(self) -> None:
        command = [sys.executable, "-m", "gateway", "tools", "--url", "http://127.0.0.1:1"]
        assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 3


class TestWebSocket:
    async def test_subprotocol_carries_many_runs(self, gateway: Served) -> None:
        url = f"ws://127.0.0.1:{gateway.port}/v1/ws"
        async with websockets.connect(url, subprotocols=[websockets.Subprotocol("snakepit.gateway.v1")]) as socket:
            await socket.send('{"type":"connection_init"}')
            assert json.loads(await socket.recv())["type"] == "connection_ack"
            for name, count in (("a", 3), ("b", 5)):
                frame = {"type": "subscribe", "id": name, "payload": {"tool": "stream_numbers", "args": {"count": count}}}
                await socket.send(json.dumps(frame))
            seen: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
            while not all(frames and frames[-1]["type"] == "complete" for frames in seen.values()):
                frame = json.loads(await socket.recv())
                seen[frame["id"]].append(frame)
        for name, count in (("a", 3), ("b", 5)):
            start, *chunks, end = [frame for frame in seen[name] if frame["type"] != "status"]
            assert start["type"] == "start"
            assert [chunk["payload"]["number"] for chunk in chunks] == list(range(count))
            assert [chunk["eid"] for chunk in chunks] == [f"{start['payload']['run']}.{n}" for n in range(1, count + 1)]
            assert end["payload"]["status"] == "ok"
            assert set(end["payload"]["metadata"]) >= DECORATION

    async def test_plain_socket_sends_the_events_as_objects(self, gateway: Served) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/tools/train_with_progress/ws?epochs=1") as socket:
            events = [json.loads(message) async for message in socket]
            assert socket.close_code == 1000
        assert [event["event"] for event in events] == ["start", "message", "message", "end"]
        assert [event["id"].rpartition(".")[2] for event in events] == ["0", "1", "2", "end"]
        check_training([event["data"] for event in events[1:-1]], events[-1]["data"], 1)


class TestGrpc:
    async def test_chunks_arrive_in_order_and_the_final_one_is_decorated(self, gateway: Served) -> None:
        async with bridge(gateway) as stub:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="grpc-demo"))
            chunks = [chunk async for chunk in stub.ExecuteStreamingTool(tool_request("grpc-demo", "train_with_progress", epochs=1))]
        assert [json.loads(chunk.data).get("epoch") for chunk in chunks] == [1, None]
        assert [chunk.is_final for chunk in chunks] == [False, True]
        assert [chunk.chunk_id for chunk in chunks] == ["train_with_progress-1", "train_with_progress-2"]
        assert set(chunks[-1].metadata) == DECORATION

    async def test_unmarked_end_is_an_empty_final_chunk(self, gateway: Served) -> None:
        async with bridge(gateway) as stub:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="grpc-demo"))
            chunks = [chunk async for chunk in stub.ExecuteStreamingTool(tool_request("grpc-demo", "stream_numbers", count=2))]
        assert [chunk.is_final for chunk in chunks] == [False, False, True]
        assert chunks[-1].data == b""
        assert set(chunks[-1].metadata) >= DECORATION

    async def test_unary_tool_answers_its_result(self, gateway: Served) -> None:
        async with bridge(gateway) as stub:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="grpc-demo"))
            answer = await stub.ExecuteTool(tool_request("grpc-demo", "add", a=1, b=2))
        assert answer.success
        assert json.loads(answer.result.value) == 3

    async def test_unknown_session_is_not_found(self, gateway: Served) -> None:
        async with bridge(gateway) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                [chunk async for chunk in stub.ExecuteStreamingTool(tool_request("nobody", "stream_numbers"))]
        assert failure.value.code() is grpc.StatusCode.NOT_FOUND
        assert failure.value.details() == "Session not found: nobody"


async def test_final_chunk_metadata_of_the_tool_is_in_end(gateway: Served) -> None:
    async with gateway.http() as client, client.stream("GET", "/v1/tools/marked/stream?count=2") as response:
        story = await read_sse(response)
    assert story.chunks == [{"n": 1}, {"n": 2}]
    assert story.end is not None
    assert story.end["metadata"]["note"] == "chunk 2"
    assert set(story.end["metadata"]) == DECORATION | {"note"}


class TestChunksAsTheyHappen:
    """The tool goes on only when the test has seen its chunk: nothing on the way may wait for more."""

    async def test_sse(self, gateway: Served, tag: str) -> None:
        async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?tag={tag}") as response:
            seen = []
            async for event in events_of(response):
                if event.event == "message":
                    seen.append(event.json()["n"])
                    gateway.open_gate(tag, seen[-1] + 1)
        assert seen == [1, 2, 3]

    async def test_ndjson(self, gateway: Served, tag: str) -> None:
        headers = {"Accept": "application/jsonl"}
        async with (
            gateway.http() as client,
            client.stream("POST", "/v1/tools/gated/stream", json={"tag": tag}, headers=headers) as response,
        ):
            assert response.headers["content-type"].startswith("application/jsonl")
            seen = []
            async for line in response.aiter_lines():
                if line and "seq" in (entry := json.loads(line)):
                    seen.append(entry["data"]["n"])
                    gateway.open_gate(tag, seen[-1] + 1)
        assert seen == [1, 2, 3]

    async def test_websocket(self, gateway: Served, tag: str) -> None:
        seen = []
        async with websockets.connect(f"ws://127.0.0.1:{gateway.port}/v1/tools/gated/ws?tag={tag}") as socket:
            async for message in socket:
                event = json.loads(message)
                if event["event"] == "message":
                    seen.append(event["data"]["n"])
                    gateway.open_gate(tag, seen[-1] + 1)
        assert seen == [1, 2, 3]

    async def test_grpc(self, gateway: Served, tag: str) -> None:
        seen = []
        async with bridge(gateway) as stub:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="gates"))
            async for chunk in stub.ExecuteStreamingTool(tool_request("gates", "gated", tag=tag)):
                if chunk.data:
                    seen.append(json.loads(chunk.data)["n"])
                    gateway.open_gate(tag, seen[-1] + 1)
        assert seen == [1, 2, 3]

    async def test_curl(self, gateway: Served, tag: str) -> None:
        url = f"{gateway.url}/v1/tools/gated/stream?tag={tag}"
        process = await asyncio.create_subprocess_exec("curl", "-sN", url, stdout=PIPE)
        assert process.stdout is not None
        seen = []
        async for line in process.stdout:
            if line.startswith(b'data: {"n"'):
                seen.append(json.loads(line.removeprefix(b"data: "))["n"])
                gateway.open_gate(tag, seen[-1] + 1)
        assert await process.wait() == 0
        assert seen == [1, 2, 3]

    async def test_command_line(self, gateway: Served, tag: str) -> None:
        command = (sys.executable, "-m", "gateway", "stream", "gated", f"tag={tag}", "--url", gateway.url)
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=ROOT)
        assert process.stdout is not None
        seen = []
        async for line in process.stdout:
            seen.append(json.loads(line)["n"])
            gateway.open_gate(tag, seen[-1] + 1)
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert seen == [1, 2, 3]


class TestReconnect:
    async def test_after_the_end_is_204_and_runs_nothing(self, gateway: Served, tag: str) -> None:
        url = f"/v1/tools/numbered/stream?tag={tag}&count=3"
        async with gateway.http() as client:
            async with client.stream("GET", url) as response:
                last_id = [event.id async for event in events_of(response)][-1]
            again = await client.get(url, headers={"Last-Event-ID": last_id})
        assert again.status_code == 204
        assert gateway.journal(tag).count("start") == 1

    async def test_to_a_forgotten_run_is_an_expired_end_then_204(self, gateway: Served, tag: str) -> None:
        url = f"/v1/tools/numbered/stream?tag={tag}&count=3"
        async with gateway.http() as client:
            async with client.stream("GET", url, headers={"Last-Event-ID": "r_01ARZ3NDEKTSV4RRFFQ69G5FAV.7"}) as response:
                assert response.status_code == 200
                events = [event async for event in events_of(response)]
            assert [event.event for event in events] == ["end"]
            assert events[0].json()["status"] == "expired"
            again = await client.get(url, headers={"Last-Event-ID": events[0].id})
        assert again.status_code == 204
        assert gateway.journal(tag) == []


async def test_ndjson_and_sse_tell_the_same_story(gateway: Served, tag: str) -> None:
    async with gateway.http() as client:
        url = f"/v1/tools/numbered/stream?tag={tag}&count=50"
        async with client.stream("GET", url) as response:
            by_sse = await read_sse(response)
        async with client.stream("GET", url, headers={"Accept": "application/x-ndjson"}) as response:
            by_lines = await read_ndjson(response)
    assert by_sse.chunks == by_lines.chunks == [{"stream": tag, "n": n} for n in range(1, 51)]
    assert by_sse.numbers == by_lines.numbers == list(range(1, 51))
