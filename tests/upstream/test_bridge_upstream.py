"""The gateway in front of a BridgeServer (`kind = "bridge"`): HTTP in, Snakepit's server as it answers behind."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gateway.settings import SettingsError
from gateway.settings import load as read_settings
from tests.e2e.harness import Served, served, wait_for
from tests.upstream.bridge_server import NO_STREAMING, PAYLOAD, TOOLS, WORKER, BridgeServer

_names = itertools.count(1)


def settings(address: str, tools: tuple[str, ...] = TOOLS, worker_id: str | None = WORKER, **more: Any) -> str:
    options = {"concurrency": 4, "health_interval_s": 0.2, "health_timeout_s": 2, **more}
    if worker_id is not None:
        options["worker_id"] = worker_id
    lines = [f"{name} = {orjson.dumps(value).decode()}" for name, value in options.items()]
    return "\n".join(['[[pools]]\nname = "there"\nkind = "bridge"', f'addresses = ["{address}"]', f"tools = {list(tools)}", *lines]) + "\n"


@pytest.fixture(scope="module")
def there() -> Iterator[BridgeServer]:
    server = BridgeServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def in_front(there: BridgeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("gateway"), settings=settings(there.address)) as gateway:
        yield gateway


@pytest.fixture
def gateway(in_front: Served, there: BridgeServer) -> Iterator[Served]:
    """The gateway that most tests share; its server behaves."""
    there.behave()
    yield in_front
    there.held.set()
    wait_for(in_front.is_idle, "the calls to end")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[BridgeServer]:
    """The server behind that gateway; for a test that starts another one, a server of its own."""
    if "gateway" in request.fixturenames:
        yield request.getfixturevalue("there")
        return
    server = BridgeServer()
    yield server
    server.stop()


def stream(gateway: Served, tool: str, session: str | None = None, **headers: str) -> httpx.Response:
    query = {} if session is None else {"_session": session}
    return gateway.client.post(f"/v1/tools/{tool}/stream", params=query, json={}, headers={"accept": "application/json", **headers})


def call(gateway: Served, tool: str, session: str | None = None, **arguments: Any) -> httpx.Response:
    query = {} if session is None else {"_session": session}
    return gateway.client.post(f"/v1/tools/{tool}/call", params=query, json=arguments)


def failed(gateway: Served, tool: str) -> tuple[list[Any], dict[str, Any]]:
    """Return a stream's chunks and the error that it ended with."""
    answer = gateway.client.post(f"/v1/tools/{tool}/stream", json={}, headers={"accept": "application/x-ndjson"})
    lines = [orjson.loads(line) for line in answer.text.splitlines() if line]
    return [line["data"] for line in lines if "data" in line], lines[-1]["end"]["error"]


def new_session() -> str:
    return f"mine-{next(_names)}"


# what comes through


def test_a_stream_has_its_chunks_and_the_servers_final(gateway: Served) -> None:
    answer = stream(gateway, "count").json()
    assert answer["chunks"] == [{"n": 1}]
    assert (answer["end"]["status"], answer["end"]["metadata"]["worker_id"]) == ("ok", WORKER)


def test_a_final_that_the_server_made_up_is_its_own(gateway: Served) -> None:
    metadata = stream(gateway, "no_final").json()["end"]["metadata"]
    assert (metadata["synthetic_final"], metadata["chunks_sent"]) == ("true", "1")


def test_a_unary_call_has_its_result(gateway: Served) -> None:
    assert call(gateway, "echo", a=[1, None], b="é").json()["result"] == {"a": [1, None], "b": "é"}


def test_a_session_is_begun_with_its_tools_when_a_call_needs_it(gateway: Served, server: BridgeServer) -> None:
    session = new_session()
    for _ in range(3):
        assert stream(gateway, "count", session).status_code == 200
    assert [server.count(method, session) for method in ("InitializeSession", "RegisterTools", "Execute")] == [1, 1, 3]
    assert {server.tools[session, tool] for tool in TOOLS} == {WORKER}


def test_calls_without_a_session_share_one_of_the_pools(gateway: Served, server: BridgeServer) -> None:
    for _ in range(2):
        call(gateway, "echo")
    (session,) = {request.session_id for request in server.requests}
    assert session.startswith("gateway_there-1_")
    assert server.count("InitializeSession") <= 1


def test_time_and_correlation_are_in_the_requests_metadata(gateway: Served, server: BridgeServer) -> None:
    answer = gateway.client.post("/v1/tools/echo/call", params={"_timeout_ms": 5000}, json={}, headers={"x-request-id": "mine"})
    assert answer.status_code == 200
    metadata = dict(server.requests[-1].metadata)
    assert metadata.pop("correlation_id") == "mine"
    assert 3000 < int(metadata.pop("timeout_ms")) <= 5000
    assert metadata == {}


# a session that is not there any more


@pytest.mark.parametrize("unary", [False, True])
def test_a_session_that_was_forgotten_is_begun_again_unseen(gateway: Served, server: BridgeServer, unary: bool) -> None:
    session = new_session()
    ask = call if unary else stream
    assert ask(gateway, "count", session).status_code == 200
    server.forget()
    answer = ask(gateway, "count", session)
    assert answer.status_code == 200, answer.text
    # Its tools are there from before: what is a duplicate is there.
    assert server.count("InitializeSession", session) == 2
    assert server.count("Execute", session) == 3


@pytest.mark.parametrize("unary", [False, True])
def test_a_session_that_is_forgotten_each_time_is_an_error_at_the_second(gateway: Served, server: BridgeServer, unary: bool) -> None:
    server.forgets_at_once = True
    answer = (call if unary else stream)(gateway, "count")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/worker-lost")
    assert "forgets its sessions" in answer.json()["detail"]
    assert server.count("Execute") == 2
    wait_for(gateway.is_idle, "the place to be free")


def test_a_session_of_ours_that_ends_is_ended_there(gateway: Served, server: BridgeServer) -> None:
    session = new_session()
    stream(gateway, "count", session)
    assert gateway.client.delete(f"/v1/sessions/{session}").is_success
    wait_for(lambda: session not in server.sessions, "its end")
    assert stream(gateway, "count", session).status_code == 200


def test_sessions_are_ended_when_the_gateway_stops(server: BridgeServer, tmp_path: Path) -> None:
    with served(tmp_path, settings=settings(server.address)) as gateway:
        for session in (new_session(), None):
            stream(gateway, "count", session)
        assert len(server.sessions) == 2
    assert server.sessions == set()


# what goes wrong


@pytest.mark.parametrize(
    ("tool", "status", "problem", "words"),
    [
        ("unary_only", 501, "tool-not-streaming", NO_STREAMING.format("unary_only")),
        ("invalid", 422, "invalid-arguments", 'Invalid parameter x: "unexpected end of input"'),
        ("unreachable", 503, "worker-lost", "Failed to connect to worker: :econnrefused"),
        ("crashes", 500, "tool-error", "Internal Server Error"),
    ],
)
def test_a_refusal_is_what_it_means(gateway: Served, tool: str, status: int, problem: str, words: str) -> None:
    answer = stream(gateway, tool)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{problem}")
    assert words in answer.json()["detail"]


def test_a_tools_exception_is_that_behind_its_chunks(gateway: Served) -> None:
    chunks, error = failed(gateway, "fails")
    assert chunks == [{"n": 1}]
    assert (error["type"], error["error_type"], error["detail"], error["code"]) == (
        "/problems/tool-error",
        "ValueError",
        "boom",
        "INVALID_ARGUMENT",
    )
    assert "Traceback" not in orjson.dumps(error).decode()


@pytest.mark.parametrize("tool", ["fails", "fails_oddly"])
def test_a_unary_tools_exception_is_found_in_the_servers_words(gateway: Served, tool: str) -> None:
    answer = call(gateway, tool)
    assert (answer.status_code, answer.json()["error_type"], answer.json()["detail"]) == (400, "ValueError", "boom")
    assert PAYLOAD not in answer.text


def test_a_failure_in_no_form_is_said_as_it_is(gateway: Served) -> None:
    _, error = failed(gateway, "fails_oddly")
    assert (error["code"], error["detail"]) == ("INTERNAL", "%GRPC.RPCError{status: 13}")


def test_a_worker_id_that_is_not_the_servers_is_named(server: BridgeServer, tmp_path: Path) -> None:
    with served(tmp_path, settings=settings(server.address, worker_id="default_worker_9_9")) as gateway:
        answer = stream(gateway, "count")
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/no-workers-available")
    assert "Worker not found: default_worker_9_9" in answer.json()["detail"]
    assert "worker_id" in answer.json()["detail"]


def test_without_a_worker_id_tools_have_to_be_there(server: BridgeServer, tmp_path: Path) -> None:
    with served(tmp_path, settings=settings(server.address, worker_id=None)) as gateway:
        missing = [(call if unary else stream)(gateway, "count", "s") for unary in (False, True)]
        assert server.count("RegisterTools") == 0
        server.tools["s", "count"] = WORKER
        assert stream(gateway, "count", "s").status_code == 200
    for answer in missing:
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/tool-not-found")
        assert "worker_id" in answer.json()["detail"]


def test_a_server_that_takes_no_more_sessions_is_saturated(gateway: Served, server: BridgeServer) -> None:
    server.quota = 0
    session = new_session()
    answer = stream(gateway, "count", session)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/pool-saturated")
    assert "session_quota_exceeded" in answer.json()["detail"]
    server.quota = 10_000
    assert stream(gateway, "count", session).status_code == 200


def test_a_server_that_restarts_is_used_again_and_its_sessions_begun_anew(gateway: Served, server: BridgeServer) -> None:
    session = new_session()
    stream(gateway, "count", session)
    server.stop()
    wait_for(lambda: gateway.pools()["there"]["workers"][0]["state"] != "ready", "it to be seen")
    assert gateway.client.get("/readyz").status_code == 503
    server.forget()
    server.tools.clear()
    server.start()
    wait_for(gateway.is_ready, "it to be back")
    assert stream(gateway, "count", session).status_code == 200


def load(folder: Path, text: str) -> None:
    (folder / "gateway.toml").write_text(text)
    read_settings(folder / "gateway.toml")


def test_tools_names_that_a_server_refuses_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a BridgeServer takes no name '_hidden'"):
        load(tmp_path, settings("127.0.0.1:1", tools=("_hidden",)))


def test_headers_that_cannot_be_sent_are_named_and_their_values_are_not(tmp_path: Path) -> None:
    for name in ("Authorization", "grpc-timeout", "te", "x-bin"):
        with pytest.raises(SettingsError, match=f"headers: '{name}' can't be sent") as caught:
            load(tmp_path, settings("127.0.0.1:1") + f'headers = {{ {name} = "secret" }}\n')
        assert "secret" not in str(caught.value)
    with pytest.raises(SettingsError, match="worker_id and headers are for kind"):
        load(tmp_path, '[[pools]]\naddresses = ["127.0.0.1:1"]\nworker_id = "w"\n')
    with pytest.raises(SettingsError, match="list their names in `tools`"):
        load(tmp_path, '[[pools]]\nkind = "bridge"\naddresses = ["127.0.0.1:1"]\n')


# leaving


def test_a_client_that_leaves_resets_the_call(gateway: Served, server: BridgeServer) -> None:
    with gateway.client.stream("POST", "/v1/tools/endless/stream", json={}) as response:
        assert any('{"n": 1}' in line for line in response.iter_lines())
    wait_for(server.cancelled.is_set, "the server to hear of it")
    wait_for(gateway.is_idle, "the place to be free")


def test_a_client_that_leaves_while_its_session_is_begun_takes_nothing(gateway: Served, server: BridgeServer) -> None:
    server.held.clear()
    session = new_session()
    run = gateway.client.post("/v1/tools/count/runs", params={"_session": session}, json={}).json()["run"]
    wait_for(lambda: server.count("InitializeSession") == 1, "the session to be begun")
    assert gateway.client.delete(f"/v1/runs/{run}").is_success
    wait_for(gateway.is_idle, "the place to be free")
    server.held.set()
    assert stream(gateway, "count", session).status_code == 200
    assert server.count("Execute") == 1


def test_a_server_that_dies_ends_its_streams_and_the_others_go_on(server: BridgeServer, tmp_path: Path) -> None:
    other = BridgeServer()
    beside = settings(other.address, tools=("count",)).replace('"there"', '"beside"')
    with served(tmp_path, settings=settings(server.address) + beside) as gateway:
        with gateway.client.stream("POST", "/v1/tools/endless/stream", params={"_pool": "there"}, json={}) as response:
            lines = response.iter_lines()
            assert any('{"n": 1}' in line for line in lines)
            server.stop()
            assert any("/problems/worker-lost" in line for line in lines)
        answer = gateway.client.post("/v1/tools/count/stream", params={"_pool": "beside"}, json={}, headers={"accept": "application/json"})
        assert answer.json()["chunks"] == [{"n": 1}]
        wait_for(gateway.is_idle, "the place to be free")
    other.stop()


def test_many_calls_at_once_wait_for_one_session(gateway: Served, server: BridgeServer) -> None:
    server.held.clear()
    query = {"_session": new_session()}
    runs = [gateway.client.post("/v1/tools/count/runs", params=query, json={}).json()["run"] for _ in range(8)]
    wait_for(lambda: server.count("InitializeSession") == 1, "the session to be begun")
    server.held.set()
    wait_for(lambda: all(gateway.client.get(f"/v1/runs/{run}").json()["state"] == "ok" for run in runs), "all of them")
    assert server.count("InitializeSession") == 1


def test_a_reload_with_another_worker_id_begins_new_sessions(server: BridgeServer, tmp_path: Path) -> None:
    with served(tmp_path, settings=settings(server.address)) as gateway:
        stream(gateway, "count", "s")
        (tmp_path / "gateway.toml").write_text(settings(server.address, worker_id="other"))
        gateway.process.send_signal(signal.SIGHUP)
        wait_for(lambda: any(line.get("event") == "reloaded" for line in gateway.log_lines()), "the reload")
        server.tools.clear()
        assert "Worker not found: other" in stream(gateway, "count", "s").json()["detail"]
