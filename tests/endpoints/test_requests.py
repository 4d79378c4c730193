"""What is wrong with a request, told before any worker is asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import FakePool, Running, Serve
from tests.endpoints.conftest import messages, problem, raw

COUNT = "/v1/tools/count/stream"


def count_nothing(running: Running) -> None:
    assert running.pool.requests == []
    assert running.open_runs() == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unknown_tool_is_404_and_names_the_nearest(running: Running, method: str) -> None:
    response = await running.client.request(method, "/v1/tools/cuont/stream")
    assert "count" in problem(response, 404, "tool-not-found")["detail"]


async def test_unknown_pool_is_404(running: Running) -> None:
    problem(await running.client.get(COUNT, params={"_pool": "nowhere"}), 404, "pool-not-found")


async def test_tool_that_does_not_stream_is_501(running: Running) -> None:
    document = problem(await running.client.post("/v1/tools/add/stream", json={"a": 1, "b": 2}), 501, "tool-not-streaming")
    assert document["detail"].startswith("Streaming execution is not enabled for tool add.")
    count_nothing(running)


async def test_tool_that_streams_is_501_on_call(running: Running) -> None:
    document = problem(await running.client.post("/v1/tools/count/call", json={}), 501, "tool-streams")
    assert "/v1/tools/count/stream" in document["detail"]


async def test_wrong_arguments_are_422_with_one_entry_a_field(running: Running) -> None:
    response = await running.client.post("/v1/tools/add/call", json={"a": "x", "c": 1})
    document = problem(response, 422, "invalid-arguments")
    assert {entry["field"]: entry["detail"] for entry in document["errors"]} == {
        "/a": '"x" is not of type "number"',
        "/b": "is required",
        "/c": "is not an argument of add; allowed: a, b",
    }
    assert document["code"] == "INVALID_ARGUMENT"
    assert document["instance"] == "/v1/tools/add/call"
    count_nothing(running)


async def test_query_value_of_a_wrong_type_is_422(running: Running) -> None:
    document = problem(await running.client.get("/v1/tools/typed/stream?whole=x&real=nan"), 422, "invalid-arguments")
    assert [entry["field"] for entry in document["errors"]] == ["/whole", "/real"]


async def test_query_is_typed_by_the_schema(running: Running) -> None:
    running.pool.script = lambda call: call.end()
    query = 'whole=1&real=2&flag=true&text=5&numbers=1&numbers=2&names=a&maybe=null&level=low&size=3&options={"a":1}'
    response = await running.client.get(f"/v1/tools/typed/stream?{query}")
    assert response.status_code == 200, response.text
    assert running.pool.calls[0].call.arguments == {
        "whole": 1,
        "real": 2,
        "flag": True,
        "text": "5",
        "numbers": [1, 2],
        "names": ["a"],
        "maybe": None,
        "level": "low",
        "size": 3,
        "options": {"a": 1},
    }


async def test_tool_without_a_schema_takes_any_object(running: Running) -> None:
    running.pool.script = lambda call: call.end()
    await running.client.get("/v1/tools/opaque/stream", params={"a": "5", "b": "x"})
    await running.client.post("/v1/tools/opaque/stream", json={"deep": {"c": [None]}})
    assert [call.call.arguments for call in running.pool.calls] == [{"a": 5, "b": "x"}, {"deep": {"c": [None]}}]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_unknown_option_is_400_and_names_the_nearest(running: Running, method: str) -> None:
    response = await running.client.request(method, COUNT, params={"_sesion": "x"})
    document = problem(response, 400, "invalid-option")
    assert "did you mean _session?" in document["detail"]
    assert document["errors"][0]["field"] == "_sesion"
    count_nothing(running)


async def test_options_reach_the_call(serve: Serve) -> None:
    async with serve(meta_keys=("tenant",)) as running:
        running.pool.script = lambda call: call.end()
        params = {"_session": "s-1", "_timeout_ms": "1500", "_affinity": "strict_queue", "_meta.tenant": "acme"}
        response = await running.client.post(COUNT, params=params, json={"count": 1})
        assert messages(response.content)[0][1]["timeout_ms"] == 1500
        call = running.pool.calls[0].call
    assert (call.session_id, call.timeout_s, call.metadata) == ("s-1", 1.5, {"tenant": "acme"})
    (request,) = running.pool.requests
    assert (request.session_id, request.affinity) == ("s-1", "strict_queue")


async def test_grpc_timeout_header_is_the_runs_budget(running: Running) -> None:
    response = await running.client.get(COUNT, headers={"Grpc-Timeout": "50m"})
    problem(response, 504, "worker-timeout")


async def test_invalid_session_is_400(running: Running) -> None:
    document = problem(await running.client.get(COUNT, params={"_session": "a b"}), 400, "invalid-session")
    assert document["errors"][0]["field"] == "_session"


async def test_arguments_in_the_query_of_a_post_are_400(running: Running) -> None:
    document = problem(await running.client.post(COUNT, params={"count": "1"}), 400, "invalid-option")
    assert document["errors"] == [{"field": "count", "detail": "belongs in the body"}]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "slug"),
    [
        (b"{", "application/json", 400, "invalid-body"),
        (b"[]", "application/json", 400, "invalid-body"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "application/json", 400, "invalid-body"),
        (b"count=1", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b'{"count":1}', "text/plain", 415, "unsupported-media-type"),
        (b'{"a":"\xff"}', "application/json", 400, "invalid-body"),
    ],
)
async def test_wrong_body_is_told(running: Running, body: bytes, content_type: str, status: int, slug: str) -> None:
    response = await running.client.post(COUNT, content=body, headers={"Content-Type": content_type})
    problem(response, status, slug)
    count_nothing(running)


@pytest.mark.parametrize("path", [COUNT, "/v1/tools/count/call", "/v1/sessions"])
async def test_body_larger_than_the_limit_is_413_whether_declared_or_not(serve: Serve, path: str) -> None:
    async with serve(body_limit_bytes=100) as running:
        declared = await running.client.post(path, content=b'{"a":"%b"}' % (b"x" * 100), headers={"Content-Type": "application/json"})

        async def parts() -> Any:
            yield b'{"a":"'
            for _ in range(50):
                yield b"x" * 10
            yield b'"}'

        chunked = await running.client.post(path, content=parts(), headers={"Content-Type": "application/json"})
        for response in (declared, chunked):
            assert "100 bytes" in problem(response, 413, "body-too-large")["detail"]


async def test_query_longer_than_the_limit_is_414(serve: Serve) -> None:
    async with serve(query_limit_bytes=100) as running:
        response = await running.client.get("/v1/tools/typed/stream", params={"text": "x" * 100})
        assert "use POST" in problem(response, 414, "query-too-long")["detail"]


@pytest.mark.parametrize("query", ["text=%FF", "&".join(f"a{n}=1" for n in range(1001))])
async def test_query_that_cannot_be_read_is_400(running: Running, query: str) -> None:
    problem(await running.client.get(f"/v1/tools/typed/stream?{query}"), 400, "invalid-option")


async def test_client_that_leaves_while_it_sends_its_body_starts_nothing(running: Running) -> None:
    stream = await raw(running, "POST", COUNT, None, Content_Type="application/json", Content_Length="1000")
    stream.writer.write(b'{"cou')
    await stream.writer.drain()
    stream.cut()
    # The next request is served, and is the only one that was.
    running.pool.script = lambda call: call.end()
    await running.client.get(COUNT)
    assert len(running.pool.calls) == 1


async def test_no_worker_yet_is_503_with_the_reason(serve: Serve) -> None:
    pool = FakePool()
    pool.tools = {}
    pool.reasons = ["pool default: worker 1 is starting"]
    async with serve(pools={"default": pool}) as running:
        response = await running.client.get(COUNT)
        document = problem(response, 503, "no-workers-available")
    assert "worker 1 is starting" in document["detail"]
    assert response.headers["retry-after"] == "2"
