"""Methods of a real gRPC server through the whole gateway: HTTP in, gRPC out, and everything back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Running, Serve, until
from tests.endpoints.conftest import JSON, NDJSON, SSE, messages, problem, raw
from tests.services import library

RPC = "/v1/rpc/test.library.v1.Library"
HEALTH = "/v1/rpc/grpc.health.v1.Health"
BOOK = {
    "name": "shelves/1/books/emma",
    "title": "Emma",
    "pages": "474",
    "genre": "NOVEL",
    "authors": ["Jane Austen"],
    "ratings": {"Harriet": 5},
    "row": 3,
}


async def ready(running: Running, pool: str = "library") -> None:
    """Wait until the service can be called."""
    await until(lambda: running.gateway.pools[pool].readiness() == [])


@pytest.fixture
async def front(serve: Serve, library_server: library.Server) -> AsyncIterator[Running]:
    """The gateway in front of the library, which it has found by reflection."""
    service = {
        "name": "library",
        "address": library_server.address,
        "headers_in": ["X-Tenant", "x-key-bin"],
        "headers_out": ["x-initial", "x-trailing"],
    }
    async with serve(services=[service], first_byte_hold_s=0.3) as running:
        await ready(running)
        yield running


# one answer


async def test_a_unary_method_answers_its_message_as_json(front: Running) -> None:
    response = await front.client.post(f"{RPC}/GetBook", json={"name": "shelves/1/books/emma"})
    assert (response.status_code, response.json()) == (200, BOOK)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-location"].startswith("/v1/runs/r_")


async def test_get_reads_the_message_from_the_query_where_a_method_changes_nothing(front: Running) -> None:
    asked = {"name": "shelves/1/books/emma", "edition": "3", "view.withCover": "true"}
    response = await front.client.get(f"{RPC}/GetBook", params=asked)
    assert response.json() == {**BOOK, "pages": "3", "cover": "iVBORw=="}


async def test_get_is_refused_where_a_method_may_change_something(front: Running, library_server: library.Server) -> None:
    response = await front.client.get(f"{RPC}/CreateBook")
    document = problem(response, 405, "method-not-allowed")
    assert (response.headers["allow"], "POST" in document["detail"]) == ("POST", True)
    assert library_server.library.seen == []


async def test_every_kind_of_field_comes_back_as_it_went(front: Running) -> None:
    value = {
        "scalars": {
            "aDouble": "NaN",
            "anInt64": "-9007199254740993",
            "aUint64": "18446744073709551615",
            "aBytes": "AAH/",
            "aMood": "MOOD_COLD",
        },
        "maps": {"byInt64": {"-5": "AQ=="}, "byBool": {"true": "x"}, "byFixed64": {"7": "2024-01-02T03:04:05.600Z"}},
        "choice": {"text": "", "yes": False},
        "wellKnown": {
            "duration": "3.500s",
            "fieldMask": "a.b,cD",
            "struct": {"a": [1.0, None, {"b": True}]},
            "value": None,
            "int64Value": "0",
            "any": {"@type": "type.googleapis.com/test.library.v1.Note", "text": "inside"},
        },
        "node": {"name": "root", "children": [{"name": "leaf"}]},
        "@name": "odd",
    }
    response = await front.client.post(f"{RPC}/Echo", json=value)
    assert (response.status_code, response.json()) == (200, value)


async def test_names_of_the_proto_file_are_taken_too(front: Running) -> None:
    response = await front.client.post(f"{RPC}/Echo", json={"well_known": {"string_value": "x"}})
    assert response.json() == {"wellKnown": {"stringValue": "x"}}


async def test_unary_accepts_json_only(front: Running, library_server: library.Server) -> None:
    problem(await front.client.post(f"{RPC}/GetBook", json={}, headers=SSE), 406, "not-acceptable")
    assert library_server.library.seen == []


# many answers


async def test_a_stream_as_sse_has_ids_and_an_end(front: Running) -> None:
    response = await front.client.get(f"{RPC}/WatchShelf", params={"shelf": "shelves/1", "limit": "2"}, headers=SSE)
    assert response.headers["content-type"].startswith("text/event-stream")
    # Without a limit it would go on: with one it ends by itself.
    events = messages(response.content)
    run = events[0][1]["run"]
    assert [name for name, _ in events] == ["start", "message", "message", "end"]
    assert events[0][1]["tool"] == "test.library.v1.Library/WatchShelf"
    assert events[1][1] == {"sequence": "1", "removed": "shelves/1/books/1", "at": "2023-11-14T22:13:21Z"}
    # Nothing of a worker's is made up for a service.
    assert (events[-1][1]["status"], events[-1][1]["chunks"], "metadata" in events[-1][1]) == ("ok", 2, False)
    assert f"id: {run}.2\n".encode() in response.content


async def test_a_stream_as_lines_and_as_one_document(front: Running) -> None:
    lines = await front.client.post(f"{RPC}/Count", json={"to": 2}, headers=NDJSON)
    parsed = [line for line in lines.text.splitlines() if line]
    assert parsed[1:3] == ['{"seq":1,"data":{"number":1}}', '{"seq":2,"data":{"number":2}}']
    whole = await front.client.post(f"{RPC}/Count", json={"to": 2}, headers=JSON)
    assert whole.json()["chunks"] == [{"number": 1}, {"number": 2}]
    assert whole.json()["end"]["status"] == "ok"


async def test_health_watch_is_a_stream_of_the_services_states(front: Running, library_server: library.Server) -> None:
    stream = await raw(front, "GET", f"{HEALTH}/Watch", accept="text/event-stream")
    await stream.until(b'data: {"status":"SERVING"}\n\n')
    await library_server.health.set("", 2)
    await stream.until(b'data: {"status":"NOT_SERVING"}\n\n')


async def test_a_reader_that_comes_back_goes_on_after_its_last_event(front: Running, library_server: library.Server) -> None:
    first = await front.client.post(f"{RPC}/Count", json={"to": 5}, headers=SSE)
    run = messages(first.content)[0][1]["run"]
    again = await front.client.get(f"{RPC}/Count", headers={**SSE, "Last-Event-ID": f"{run}.3"})
    assert [data["number"] for name, data in messages(again.content) if name == "message"] == [4, 5]
    assert len(library_server.library.seen) == 1
    ended = await front.client.get(f"{RPC}/Count", headers={**SSE, "Last-Event-ID": f"{run}.end"})
    assert ended.status_code == 204


async def test_client_that_leaves_cancels_the_call_at_the_server(front: Running, library_server: library.Server) -> None:
    stream = await raw(front, "POST", f"{RPC}/Count", b'{"pauseMs":5}', accept="text/event-stream")
    await stream.until(b'{"number":2}')
    stream.cut()
    await library_server.library.until(lambda: library_server.library.cancelled == ["Count"])
    await until(lambda: front.open_runs() == 0)


async def test_a_slow_reader_makes_the_server_wait(front: Running, library_server: library.Server) -> None:
    stream = await raw(front, "POST", f"{RPC}/Count", b'{"size":20000}', receive_buffer_bytes=4096, accept="text/event-stream")
    await stream.until(b"data: {")
    run = next(iter(front.gateway.hub.live_runs))
    await until(lambda: run.paused)
    chunks = run.chunks
    await asyncio.sleep(0.1)
    # What was on its way when it was paused is at most a window.
    assert run.chunks - chunks < 20
    stream.cut()
    await library_server.library.until(lambda: library_server.library.cancelled == ["Count"])


# runs


async def test_a_call_is_a_run_like_any_other(front: Running, library_server: library.Server) -> None:
    started = await front.client.post(f"{RPC}/Count", json={"pause_ms": 5}, headers={"Prefer": "respond-async"})
    assert started.status_code == 202
    run = started.json()["run"]
    events = await raw(front, "GET", f"/v1/runs/{run}/events", accept="text/event-stream")
    await events.until(b'{"number":3}')
    listed = (await front.client.get("/v1/runs", params={"tool": "test.library.v1.Library/Count"})).json()["runs"]
    assert [(entry["run"], entry["pool"], entry["state"]) for entry in listed] == [(run, "library", "running")]
    assert (await front.client.delete(f"/v1/runs/{run}")).json()["state"] == "cancelled"
    await events.until(b'"status":"cancelled"')
    await library_server.library.until(lambda: library_server.library.cancelled == ["Count"])


async def test_a_unary_runs_result_is_its_message(front: Running) -> None:
    started = await front.client.post(f"{RPC}/GetBook", json={"name": "a"}, headers={"Prefer": "respond-async"})
    result = await front.client.get(f"/v1/runs/{started.json()['run']}/result", headers={"Prefer": "wait=5"})
    # As the result of any run; the answer as it is, is what the call itself answers.
    assert result.json() == {"result": {**BOOK, "name": "a"}, "metadata": {}}


async def test_an_idempotency_key_calls_once(front: Running, library_server: library.Server) -> None:
    key = {"Idempotency-Key": "k", **SSE}
    one = await front.client.post(f"{RPC}/Count", json={"to": 2}, headers=key)
    two = await front.client.post(f"{RPC}/Count", json={"to": 2}, headers=key)
    assert messages(one.content)[1:3] == messages(two.content)[1:3]
    assert len(library_server.library.seen) == 1
    problem(await front.client.post(f"{RPC}/Count", json={"to": 3}, headers=key), 422, "idempotency-conflict")
    # Another tenant's request is another request.
    problem(await front.client.post(f"{RPC}/Count", json={"to": 2}, headers={**key, "X-Tenant": "b"}), 422, "idempotency-conflict")


async def test_deadlines_end_the_call_at_the_server(front: Running, library_server: library.Server) -> None:
    late = await front.client.post(f"{RPC}/Count", params={"_timeout_ms": "200"}, json={"to": 1, "pause_ms": 60_000}, headers=JSON)
    assert problem(late, 504, "worker-timeout")["code"] == "DEADLINE_EXCEEDED"
    await library_server.library.until(lambda: library_server.library.cancelled == ["Count"])
    silent = await front.client.post(f"{RPC}/Count", params={"_idle_timeout_ms": "100"}, json={"pause_ms": 60_000}, headers=JSON)
    assert problem(silent, 504, "worker-timeout")["deadline"] == "idle"


async def test_head_says_what_a_get_would_and_calls_nothing(front: Running, library_server: library.Server) -> None:
    response = await front.client.head(f"{RPC}/Count", headers=SSE)
    assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    assert library_server.library.seen == []


# what is wrong with a request


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"nam": "x"}, "/nam", "name"),
        ({"edition": "many"}, "/edition", ""),
        ({"view": {"withCover": 3}}, "/view/withCover", ""),
    ],
)
async def test_a_message_that_does_not_fit_is_400_and_names_the_field(
    front: Running, library_server: library.Server, body: Any, field: str, said: str
) -> None:
    document = problem(await front.client.post(f"{RPC}/GetBook", json=body), 400, "invalid-message")
    assert [entry["field"] for entry in document["errors"]] == [field]
    assert said in document["errors"][0]["detail"]
    assert library_server.library.seen == []


async def test_a_query_that_does_not_fit_is_400(front: Running) -> None:
    document = problem(await front.client.get(f"{RPC}/GetBook", params={"nam": "x"}), 400, "invalid-message")
    assert document["errors"][0]["field"] == "nam"


async def test_bodies_that_are_none(front: Running) -> None:
    plain = {"Content-Type": "text/plain"}
    problem(await front.client.post(f"{RPC}/GetBook", content=b"{}", headers=plain), 415, "unsupported-media-type")
    json = {"Content-Type": "application/json"}
    problem(await front.client.post(f"{RPC}/GetBook", content=b"{", headers=json), 400, "invalid-body")
    problem(await front.client.post(f"{RPC}/GetBook", content=b"[" * 100 + b"]" * 100, headers=json), 400, "invalid-body")
    problem(await front.client.post(f"{RPC}/GetBook", content=b"[1]", headers=json), 400, "invalid-message")
    problem(await front.client.post(f"{RPC}/GetBook", params={"name": "x"}, json={}), 400, "invalid-option")


async def test_options_of_workers_are_refused(front: Running) -> None:
    for option in ("_session", "_affinity", "_meta.x", "_nonsense"):
        problem(await front.client.post(f"{RPC}/GetBook", params={option: "hint"}, json={}), 400, "invalid-option")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"{RPC}/GetBok", "did you mean 'GetBook'"),
        ("/v1/rpc/test.library.v1.Libary/GetBook", "did you mean 'test.library.v1.Library'"),
        ("/v1/rpc/test.library.v1.Libary", "did you mean 'test.library.v1.Library'"),
        ("/v1/rpc/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "there is no service"),
    ],
)
async def test_what_isnt_there_is_404_and_names_the_nearest(front: Running, path: str, said: str) -> None:
    assert said in problem(await front.client.get(path), 404, "rpc-not-found")["detail"]


@pytest.mark.parametrize("method", ["AddBooks", "Chat"])
@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_a_stream_of_messages_needs_the_socket_that_is_named(front: Running, method: str, verb: str) -> None:
    response = await front.client.request(verb, f"{RPC}/{method}", headers=SSE)
    assert f"{RPC}/{method}/ws" in problem(response, 501, "rpc-needs-socket")["detail"]


LINES = {"Content-Type": "application/x-ndjson"}


async def test_a_stream_of_messages_is_lines_in_the_body(front: Running) -> None:
    one = await front.client.post(f"{RPC}/AddBooks", content=b'{"name":"a"}\n\n{"name":"b"}\n', headers=LINES)
    assert one.json() == {"count": 2, "names": ["a", "b"]}
    assert (await front.client.post(f"{RPC}/AddBooks", content=b"", headers=LINES)).json() == {}
    both = await front.client.post(f"{RPC}/Chat", content=b'{"text":"x"}\n{"text":"y"}', headers={**LINES, **SSE})
    texts = [data["text"] for name, data in messages(both.content) if name == "message"]
    assert texts == ["X", "Y", "that is all"]
    early = await front.client.post(f"{RPC}/Chat", content=b'{"text":"bye"}\n{"text":"y"}', headers={**LINES, **JSON})
    assert (early.json()["chunks"], early.json()["end"]["status"]) == ([], "ok")


async def test_more_than_there_is_room_for_waits_for_the_server(front: Running) -> None:
    # 4 MB are more than any window, and than what may wait to be sent.
    body = b"\n".join(b'{"name":"n%d","title":"%s"}' % (number, b"t" * 8000) for number in range(500))
    answer = (await front.client.post(f"{RPC}/AddBooks", content=body, headers=LINES)).json()
    assert (answer["count"], answer["names"]) == (500, [f"n{number}" for number in range(100)])


async def test_a_line_that_does_not_fit_is_named_and_nothing_is_sent(front: Running, library_server: library.Server) -> None:
    wrong = await front.client.post(f"{RPC}/AddBooks", content=b'{"name":"a"}\n{"nam":"b"}', headers=LINES)
    document = problem(wrong, 400, "invalid-message")
    assert (document["errors"][0]["field"], document["detail"].startswith("Line 2: ")) == ("/1/nam", True)
    problem(await front.client.post(f"{RPC}/AddBooks", content=b"{}\n{", headers=LINES), 400, "invalid-body")
    problem(await front.client.post(f"{RPC}/AddBooks", content=b"{}\n" * 1001, headers=LINES), 400, "invalid-body")
    # A method that takes one message takes no lines.
    problem(await front.client.post(f"{RPC}/GetBook", content=b"{}", headers=LINES), 415, "unsupported-media-type")
    assert library_server.library.seen == []


async def test_a_method_is_no_tool_and_a_tool_no_method(front: Running) -> None:
    problem(await front.client.post("/v1/tools/GetBook/call", json={}), 404, "tool-not-found")
    problem(await front.client.post("/v1/tools/GetBook/call?_pool=library", json={}), 404, "tool-not-found")
    problem(await front.client.post("/v1/rpc/x/add", json={}), 404, "rpc-not-found")
    names = [tool["name"] for tool in (await front.client.get("/v1/tools")).json()["tools"]]
    assert names == ["add", "count", "opaque", "typed"]


# what the service answers


@pytest.mark.parametrize(("code", "status"), [(3, 400), (5, 404), (6, 409), (7, 403), (8, 429), (12, 501), (13, 500), (14, 503), (16, 401)])
async def test_a_status_of_the_service_is_the_http_status(front: Running, code: int, status: int) -> None:
    response = await front.client.post(f"{RPC}/Fail", json={"code": code, "message": "because"})
    assert problem(response, status, "rpc-error")["detail"] == "because"
    # The server itself is there: it is called again.
    assert (await front.client.post(f"{RPC}/GetBook", json={"name": "a"})).status_code == 200


async def test_details_of_a_status_are_told_as_json(front: Running) -> None:
    response = await front.client.post(f"{RPC}/Fail", json={"code": 3, "message": "no", "withDetails": True})
    document = problem(response, 400, "rpc-error")
    assert document["errors"] == [{"field": "/book/title", "detail": "is too long"}]
    assert response.headers["retry-after"] == "7"
    prefix = "type.googleapis.com/"
    kinds = [detail["@type"].removeprefix(prefix) for detail in document["details"]]
    assert kinds == ["google.rpc.BadRequest", "google.rpc.RetryInfo", "google.rpc.ErrorInfo", "test.library.v1.Note", "test.unknown.Thing"]
    assert document["details"][2] == {
        "@type": f"{prefix}google.rpc.ErrorInfo",
        "reason": "TITLE",
        "domain": "library.example",
        "metadata": {"limit": "80"},
    }
    assert document["details"][3] == {"@type": f"{prefix}test.library.v1.Note", "text": "own", "number": 1}
    assert document["details"][4] == {"@type": f"{prefix}test.unknown.Thing", "value": "CAE="}


async def test_a_stream_that_fails_says_so_in_its_end(front: Running) -> None:
    response = await front.client.post(f"{RPC}/Count", json={"to": 2, "code": 9, "message": "enough"}, headers=SSE)
    events = messages(response.content)
    assert [name for name, _ in events] == ["start", "message", "message", "end"]
    assert (events[-1][1]["status"], events[-1][1]["error"]["code"]) == ("error", "FAILED_PRECONDITION")
    assert events[-1][1]["error"]["detail"] == "enough"


async def test_a_server_that_goes_away_ends_the_stream(front: Running, library_server: library.Server) -> None:
    stream = await raw(front, "POST", f"{RPC}/Count", b'{"pauseMs":5}', accept="text/event-stream")
    await stream.until(b'{"number":2}')
    await library_server.stop()
    end = await stream.until(b"event: end\ndata: ") + await stream.until(b"\n")
    assert b"/problems/service-lost" in end or b"/problems/rpc-error" in end
    assert b'"code":"UNAVAILABLE"' in end


# metadata


async def test_only_allowed_headers_become_metadata(front: Running) -> None:
    headers = {
        "X-Tenant": "blue",
        "X-Other": "no",
        "Authorization": "Bearer nobody's",
        "Cookie": "a=b",
        "X-Request-Id": "req-1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    response = await front.client.post(f"{RPC}/Headers", json={}, headers=headers)
    metadata = response.json()["metadata"]
    assert metadata["x-tenant"] == "blue"
    assert metadata["x-request-id"] == "req-1"
    assert metadata["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert not {"x-other", "authorization", "cookie", "x-gateway-run-id", "x-snakepit-correlation-id"} & set(metadata)


async def test_only_allowed_metadata_become_headers(front: Running) -> None:
    response = await front.client.post(f"{RPC}/Headers", json={})
    assert (response.headers["x-initial"], response.headers["x-trailing"]) == ("first", "last")
    assert "x-blob-bin" not in response.headers


@pytest.mark.parametrize(
    ("header", "value"), [("X-Tenant", "é".encode("latin-1")), ("x-key-bin", b"not base64!"), ("X-Tenant", b"x" * 9000)]
)
async def test_a_header_that_can_be_no_metadata_is_400(front: Running, header: str, value: bytes) -> None:
    response = await front.client.post(f"{RPC}/Headers", json={}, headers=[(header.encode(), value)])
    assert problem(response, 400, "invalid-option")["errors"][0]["field"] == header.lower()


# the list


async def test_the_list_names_services_and_methods(front: Running) -> None:
    services = {service["name"]: service for service in (await front.client.get("/v1/rpc")).json()["services"]}
    assert set(services) == {"test.library.v1.Library", "grpc.health.v1.Health"}
    methods = {method["name"]: method for method in services["test.library.v1.Library"]["methods"]}
    assert (methods["GetBook"]["kind"], methods["GetBook"]["get"], methods["CreateBook"]["get"]) == ("unary", True, False)
    assert methods["Chat"]["links"] == {"call": f"{RPC}/Chat", "socket": f"{RPC}/Chat/ws"}
    assert methods["GetBook"]["http"][0] == {"method": "GET", "path": "/v1/library/{name=shelves/*/books/*}"}
    one = (await front.client.get(RPC)).json()
    book = next(method for method in one["methods"] if method["name"] == "GetBook")
    assert book["response_schema"]["properties"]["pages"]["type"] == "string"


async def test_what_is_seen_of_a_service_among_the_pools(front: Running) -> None:
    pools = {pool["name"]: pool for pool in (await front.client.get("/v1/pools")).json()["pools"]}
    assert (pools["library"]["kind"], pools["library"]["workers"][0]["state"]) == ("rpc", "ready")
    await front.client.post(f"{RPC}/GetBook", json={"name": "a"})
    metrics = (await front.client.get("/metrics")).text
    assert 'gateway_pool_places{pool="library"} 1000' in metrics
    assert 'tool="test.library.v1.Library/GetBook"' in metrics
    assert 'route="/v1/rpc/{service}/{method}"' in metrics
