"""Methods at the paths of their google.api.http annotations, through the whole gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import SettingsError
from tests.conftest import Running, Serve, until
from tests.endpoints.conftest import JSON, SSE, messages, problem, raw
from tests.services import library
from tests.services.compiled import compile_protos, descriptor_set

SHELF = "/v1/library/shelves/1"


@pytest.fixture
async def front(serve: Serve, library_server: library.Server) -> AsyncIterator[Running]:
    async with serve(services=[{"name": "library", "address": library_server.address}], first_byte_hold_s=0.3) as running:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        yield running


async def test_path_variables_and_the_query_make_the_message(front: Running, library_server: library.Server) -> None:
    response = await front.client.get(f"{SHELF}/books/emma", params={"edition": "2", "view.parts": ["a", "b"]})
    assert (response.json()["name"], response.json()["pages"]) == ("shelves/1/books/emma", "2")
    asked = library_server.library.seen[0]
    assert (asked.name, asked.edition, list(asked.view.parts)) == ("shelves/1/books/emma", 2, ["a", "b"])


async def test_an_escaped_path_is_decoded_once(front: Running) -> None:
    assert (await front.client.get(f"{SHELF}/books/a%20b")).json()["name"] == "shelves/1/books/a b"
    assert (await front.client.get("/v1/library/books/a%252Fb")).json()["name"] == "a%2Fb"


async def test_a_body_is_a_field_or_the_whole_message(front: Running) -> None:
    created = await front.client.post(f"{SHELF}/books", params={"dryRun": "true"}, json={"title": "Emma", "pages": 3})
    assert created.json() == {"name": "shelves/1/books/emma", "title": "Emma", "pages": "3"}
    moved = await front.client.post(f"{SHELF}/books/emma:move", json={"otherShelf": "shelves/2"})
    assert moved.json() == {"name": "shelves/2/books/emma"}
    changed = await front.client.patch(f"{SHELF}/books/emma", json={"title": "E"})
    assert changed.json() == {"name": "shelves/1/books/emma", "title": "E"}
    put = await front.client.put(f"{SHELF}/books/emma", json={"book": {"title": "F"}})
    assert put.json() == {"name": "shelves/1/books/emma", "title": "F"}
    assert (await front.client.delete(f"{SHELF}/books/emma")).json() == {}


async def test_response_body_answers_one_field(front: Running) -> None:
    response = await front.client.get(f"{SHELF}/books", params={"pageSize": "2"})
    assert response.json() == [{"name": "shelves/1/books/0"}, {"name": "shelves/1/books/1"}]


async def test_a_stream_at_its_own_path_is_a_stream_as_any_other(front: Running, library_server: library.Server) -> None:
    response = await front.client.get(f"{SHELF}:watch", params={"limit": "2", "_timeout_ms": "5000"}, headers=SSE)
    assert [data["sequence"] for name, data in messages(response.content) if name == "message"] == ["1", "2"]
    stream = await raw(front, "GET", f"{SHELF}:watch", accept="text/event-stream")
    await stream.until(b'"sequence":"2"')
    stream.cut()
    await library_server.library.until(lambda: library_server.library.cancelled == ["WatchShelf"])


async def test_custom_methods_and_open_paths(front: Running, library_server: library.Server) -> None:
    assert (await front.client.get("/v1/library/files/a/b/c.txt:stat")).json() == {"path": "a/b/c.txt"}
    assert (await front.client.head("/v1/library/files/a/b")).status_code == 200
    assert [asked.path for asked in library_server.library.seen] == ["a/b/c.txt", "a/b"]


async def test_what_is_wrong_is_told_as_elsewhere(front: Running, library_server: library.Server) -> None:
    document = problem(await front.client.get(f"{SHELF}/books/emma", params={"edtion": "2"}), 400, "invalid-message")
    assert document["errors"][0]["field"] == "edtion"
    problem(await front.client.get(f"{SHELF}/books/emma", params={"edition": "x"}), 400, "invalid-message")
    problem(await front.client.get(f"{SHELF}/books/emma", params={"_edition": "2"}), 400, "invalid-option")
    problem(await front.client.post(f"{SHELF}/books", content=b"x", headers={"Content-Type": "application/json"}), 400, "invalid-body")
    problem(await front.client.get(f"{SHELF}/books/emma", headers=SSE), 406, "not-acceptable")
    assert library_server.library.seen == []
    problem(await front.client.get(f"{SHELF}/books/none"), 404, "rpc-error")


async def test_no_route_is_404_and_the_wrong_method_405(front: Running) -> None:
    problem(await front.client.get("/v1/library/nothing/here"), 404, "route-not-found")
    response = await front.client.put(f"{SHELF}/books", json={})
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "GET, POST"
    # The gateway's own routes go on as they did.
    problem(await front.client.put("/v1/tools"), 405, "method-not-allowed")


async def test_a_body_that_is_too_large_is_413(serve: Serve, library_server: library.Server) -> None:
    async with serve(services=[{"name": "library", "address": library_server.address}], body_limit_bytes=100) as running:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        for verb in ("POST", "PATCH"):
            path = f"{SHELF}/books" if verb == "POST" else f"{SHELF}/books/emma"
            response = await running.client.request(verb, path, json={"title": "x" * 200})
            problem(response, 413, "body-too-large")


async def test_requests_at_such_paths_are_counted_under_one_name(front: Running) -> None:
    await front.client.get(f"{SHELF}/books/emma", headers=JSON)
    assert 'route="google.api.http"' in (await front.client.get("/metrics")).text


COLLIDING = """
syntax = "proto3";
package test.colliding.v1;
import "google/api/annotations.proto";
message Taken { string a = 1; string b = 2; }
service Colliding {
  rpc Take(Taken) returns (Taken) { option (google.api.http) = {get: "PATH"}; }
}
"""


def colliding(folder: Path, path: str) -> dict[str, Any]:
    """A service that wants this path, known by its descriptors."""
    (folder / "colliding.proto").write_text(COLLIDING.replace("PATH", path))
    target = folder / "set"
    target.write_bytes(compile_protos("colliding.proto", folder=folder))
    return {"name": "other", "address": "127.0.0.1:1", "descriptor_set": target, "services": ["test.colliding.v1.Colliding"]}


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("/v1/tools", "/v1/tools"),
        ("/v1/tools/{a}/call", "/v1/tools/{tool}/call"),
        ("/v1/rpc/{a}/{b}", "/v1/rpc/{service}/{method}"),
        ("/docs/{a}", "/docs/**"),
        ("/v1/admin/{a}/{b}", "/v1/admin/**"),
        ("/v1/library/books/{a}", "test.library.v1.Library/GetBook"),
        ("/v1/other/{c}", "has no field c"),
    ],
)
async def test_rules_that_cant_be_served_are_an_error_at_the_start(serve: Serve, tmp_path: Path, path: str, other: str) -> None:
    known = tmp_path / "library"
    known.write_bytes(descriptor_set())
    first = {"name": "library", "address": "127.0.0.1:1", "descriptor_set": known, "services": ["test.library.v1.Library"]}
    with pytest.raises(SettingsError) as raised:
        async with serve(services=[first, colliding(tmp_path, path)]):
            pass
    said = str(raised.value)
    assert ("service 'other'" in said, "test.colliding.v1.Colliding/Take" in said, other in said) == (True, True, True), said


async def test_rules_that_are_discovered_later_and_collide_cost_their_service_its_paths_only(
    serve: Serve, library_server: library.Server, tmp_path: Path
) -> None:
    services = [colliding(tmp_path, "/v1/library/books/{a}"), {"name": "library", "address": library_server.address}]
    async with serve(services=services) as running:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        problem(await running.client.get(f"{SHELF}/books/emma"), 404, "route-not-found")
        assert (await running.client.post("/v1/rpc/test.library.v1.Library/GetBook", json={"name": "a"})).status_code == 200
