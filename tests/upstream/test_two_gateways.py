"""A gateway in front of another one's gRPC front door: HTTP, gateway A (kind bridge), gateway B, a real worker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.auth.keys import line_of, new_secret
from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.conformance.scripted_worker import STREAMS, ScriptedWorker
from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import JOURNAL_ADAPTER, Served, bridge, read_sse, served, until, wait_for

TOOLS = [*STREAMS, "marked", "whoami", "endless_async", "numbered", "wait", "gated"]
NEAR = f"""
[[pools]]
name = "near"
adapter = "{JOURNAL_ADAPTER}"
size = 2
concurrency = 8
"""
_tags = itertools.count(1)


@pytest.fixture(scope="module", params=BUILDS)
def packages(request: pytest.FixtureRequest) -> Path | None:
    """Where both gateways are imported from."""
    return packages_of(request.param)


@pytest.fixture(scope="module")
def near(packages: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The gateway that has the workers."""
    worker = ScriptedWorker()
    scripted = f'\n[[pools]]\nname = "scripted"\naddresses = ["{worker.address}"]\ntools = {orjson.dumps(list(STREAMS)).decode()}\n'
    with served(tmp_path_factory.mktemp("near"), settings=NEAR + scripted, packages=packages) as gateway:
        yield gateway
    worker.stop()


@pytest.fixture(scope="module")
def far(near: Served, packages: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The one in front of it, once with a worker of its and once without."""
    pool = f'kind = "bridge"\naddresses = ["127.0.0.1:{near.grpc_port}"]\ntools = {orjson.dumps(TOOLS).decode()}\nconcurrency = 16\n'
    settings = f'[[pools]]\nname = "any"\n{pool}\n[[pools]]\nname = "pinned"\nworker_id = "near-2"\n{pool}'
    with served(tmp_path_factory.mktemp("far"), settings=settings, packages=packages) as gateway:
        yield gateway


def stream(gateway: Served, tool: str, pool: str, **arguments: Any) -> dict[str, Any]:
    answer = gateway.client.post(f"/v1/tools/{tool}/stream", params={"_pool": pool}, json=arguments, headers={"accept": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


@pytest.mark.parametrize("pool", ["any", "pinned"])
def test_chunks_and_the_workers_final_come_through(far: Served, pool: str) -> None:
    answer = stream(far, "marked", pool, count=3)
    assert answer["chunks"] == [{"n": 1}, {"n": 2}, {"n": 3}]
    metadata = answer["end"]["metadata"]
    assert (metadata["note"], metadata["tool_type"]) == ("chunk 3", "remote")
    assert metadata["worker_id"] in (("near-1", "near-2") if pool == "any" else ("near-2",))


def test_tools_registered_for_a_worker_stay_there(far: Served) -> None:
    workers = {stream(far, "marked", "pinned", count=1)["end"]["metadata"]["worker_id"] for _ in range(6)}
    assert workers == {"near-2"}


def test_a_long_stream_is_complete_and_in_order(far: Served) -> None:
    tag = f"long-{next(_tags)}"
    chunks = stream(far, "numbered", "any", tag=tag, count=5000)["chunks"]
    assert [chunk["n"] for chunk in chunks] == list(range(1, 5001))


@pytest.mark.parametrize("tool", STREAMS)
async def test_a_grpc_client_cannot_tell_how_many_gateways_there_are(far: Served, near: Served, tool: str) -> None:
    seen = []
    for gateway in (near, far):
        async with bridge(gateway) as stub:
            await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"))
            call = stub.ExecuteStreamingTool(pb.ExecuteToolRequest(session_id="s", tool_name=tool, stream=True))
            chunks = [chunk async for chunk in call]
        for chunk in chunks:
            chunk.metadata.pop("execution_time_ms", None)
        seen.append([(chunk.chunk_id, chunk.data, chunk.is_final, dict(chunk.metadata)) for chunk in chunks])
    # A final that was made up has come from a worker, to the gateway in front: it names the worker there.
    for chunk_id, _, _, metadata in seen[1]:
        if chunk_id.startswith("sp-final-"):
            assert metadata.pop("worker_id") == "any-1"
    assert seen[0] == seen[1]


def test_the_session_is_the_same_on_both(far: Served, near: Served) -> None:
    answers = [
        far.client.post("/v1/tools/whoami/call", params={"_session": "both", "_pool": "any"}, json={}).json()["result"] for _ in range(4)
    ]
    assert {answer["session"] for answer in answers} == {"both"}
    # Which ties it to a worker there.
    assert len({answer["pid"] for answer in answers}) == 1
    assert near.client.get("/v1/sessions/both").status_code == 200
    far.client.delete("/v1/sessions/both")
    wait_for(lambda: near.client.get("/v1/sessions/both").status_code == 404, "the session to end there, too")


async def test_leaving_stops_the_worker_behind_both(far: Served, near: Served) -> None:
    tag = f"leave-{next(_tags)}"
    async with far.http() as http, http.stream("POST", "/v1/tools/endless_async/stream", json={"tag": tag}) as response:
        async for line in response.aiter_lines():
            if '"n":1' in line:
                break
    await until(lambda: near.journal(tag) == ["start", "finally", "cleanup"], "the tool to stop")
    await until(lambda: far.is_idle() and near.is_idle(), "the places to be free")


async def test_a_deadline_is_told_to_the_gateway_behind(far: Served, near: Served) -> None:
    tag = f"deadline-{next(_tags)}"
    async with far.http() as http:
        url = "/v1/tools/endless_async/stream?_timeout_ms=700"
        async with http.stream("POST", url, json={"tag": tag}) as response:
            story = await read_sse(response)
    assert story.end is not None
    assert story.end["status"] == "deadline"
    await until(lambda: near.journal(tag) == ["start", "finally", "cleanup"], "the tool to stop")


def test_a_gateway_behind_that_wants_a_key_is_given_one(tmp_path: Path) -> None:
    key = new_secret()
    environment = {"GATEWAY_KEY": key, "GATEWAY_AUTH__KEYS": line_of("far", key, ["tools:*"])}
    for name in ("near", "far", "keyless"):
        (tmp_path / name).mkdir()
    with served(tmp_path / "near", settings=NEAR, environment=environment) as near:
        pool = f'[[pools]]\nkind = "bridge"\naddresses = ["127.0.0.1:{near.grpc_port}"]\ntools = ["marked"]\n'
        with served(tmp_path / "far", settings=f'{pool}headers = {{ authorization = "Bearer {key}" }}\n') as far:
            assert stream(far, "marked", "default", count=1)["chunks"] == [{"n": 1}]
        with served(tmp_path / "keyless", settings=pool, ready=False) as keyless:
            wait_for(lambda: "authorization" in keyless.client.get("/readyz").text, "the reason to be known")


def test_arguments_that_do_not_fit_are_said_by_the_gateway_behind(far: Served) -> None:
    answer = far.client.post("/v1/tools/numbered/stream", params={"_pool": "any"}, json={"tag": 1, "count": "many"})
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert "count" in answer.json()["detail"]


def test_a_tool_of_the_wrong_kind_is_said_by_the_gateway_behind(far: Served) -> None:
    answer = far.client.post("/v1/tools/whoami/stream", params={"_pool": "any"}, json={})
    assert (answer.status_code, answer.json()["type"]) == (501, "/problems/tool-not-streaming")
