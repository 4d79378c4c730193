"""A service that is there, or isn't, or comes back as another one; and who may call it, and how many at once."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.reflection_pb2 import DESCRIPTOR as REFLECTION

from gateway.app import Gateway
from gateway.errors import GatewayError
from gateway.settings import PoolSettings, ServerSettings, ServiceSettings, Settings
from tests.conftest import Running, Serve, until, within
from tests.e2e.proxy import proxied
from tests.endpoints.conftest import JSON, SSE, messages, problem, raw
from tests.endpoints.people import ADA, ADMIN, EVE, auth, person
from tests.services import library
from tests.services.compiled import PROTOS, compile_protos, descriptor_set

ServeLibrary = Callable[..., Awaitable[library.Server]]

RPC = "/v1/rpc/test.library.v1.Library"
QUICK = {"health_interval_s": 0.05, "health_timeout_s": 1.0, "start_timeout_s": 2.0}


async def ready(running: Running, pool: str = "library") -> None:
    await until(lambda: running.gateway.pools[pool].readiness() == [])


@functools.cache
def changed() -> DescriptorPool:
    """The library with a method and a field more."""
    folder = PROTOS
    source = (folder / "library.proto").read_text()
    source = source.replace("message Book {", "message Book {\n  string subtitle = 20;")
    source = source.replace("rpc Chat(", "rpc Renamed(GetBookRequest) returns (Book) {}\n  rpc Chat(")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "library.proto").write_text(source)
        (Path(scratch) / "everything.proto").write_text((folder / "everything.proto").read_text())
        data = compile_protos("library.proto", folder=Path(scratch))
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    for descriptor in (health_pb2.DESCRIPTOR, REFLECTION):
        pool.AddSerializedFile(descriptor.serialized_pb)
    return pool


class Switching:
    """A pool for a server's reflection, in whose place another one can be put."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)


async def methods(running: Running) -> set[str]:
    services = (await running.client.get("/v1/rpc")).json()["services"]
    return {f"{service['name']}/{method['name']}" for service in services for method in service["methods"]}


@pytest.mark.parametrize("transport", ["lane", "grpcio"])
async def test_both_transports_carry_it(serve: Serve, library_server: library.Server, transport: Any) -> None:
    service = {"name": "library", "address": library_server.address, "headers_out": ["x-initial", "x-trailing", "x-blob-bin"]}
    async with serve(services=[service], transport=transport) as running:
        await ready(running)
        response = await running.client.post(f"{RPC}/Headers", json={})
        passed = {name: response.headers[name] for name in ("x-initial", "x-blob-bin", "x-trailing")}
        assert passed == {"x-initial": "first", "x-blob-bin": "AAE", "x-trailing": "last"}
        stream = await raw(running, "POST", f"{RPC}/Count", b'{"pauseMs":5}', accept="text/event-stream")
        await stream.until(b'{"number":2}')
        stream.cut()
        await library_server.library.until(lambda: library_server.library.cancelled == ["Count"])


async def test_a_service_that_is_down_at_the_start_costs_nobody_else_anything(serve: Serve, serve_library: ServeLibrary) -> None:
    there = await serve_library()
    gone = await serve_library()
    await gone.stop()
    services = [{"name": "library", "address": there.address}, {"name": "gone", "address": gone.address, **QUICK}]
    async with serve(services=services) as running:
        await ready(running)
        await until(lambda: "no connection" in running.gateway.pools["gone"].readiness()[0])
        state = await running.client.get("/readyz")
        assert (state.status_code, state.json()["status"]) == (200, "degraded")
        assert "gone" in state.json()["pools"]["gone"][0]
        assert (await running.client.post(f"{RPC}/GetBook", json={"name": "a"})).status_code == 200
        document = problem(await running.client.post("/v1/rpc/some.Service/Method", json={}), 503, "no-workers-available")
        assert "pool gone" in document["detail"]
        assert "no connection" in document["detail"]
        # A tool is none of a service's, whatever it would say.
        problem(await running.client.post("/v1/tools/nobody/call", json={}), 404, "tool-not-found")
        # It comes, and is found.
        await serve_library(gone.address)
        await ready(running, "gone")
        problem(await running.client.post("/v1/rpc/some.Service/Method", json={}), 404, "rpc-not-found")


async def test_a_server_without_reflection_needs_a_descriptor_set(serve: Serve, serve_library: ServeLibrary, tmp_path: Path) -> None:
    server = await serve_library(with_reflection=False)
    async with serve(services=[{"name": "library", "address": server.address, **QUICK}]) as running:
        await until(lambda: "descriptor_set" in running.gateway.pools["library"].readiness()[0])
        problem(await running.client.post(f"{RPC}/GetBook", json={}), 503, "no-workers-available")
    known = tmp_path / "library.set"
    known.write_bytes(descriptor_set())
    service = {"name": "library", "address": server.address, "descriptor_set": known, "services": ["test.library.v1.Library"]}
    async with serve(services=[{**service, **QUICK}]) as running:
        # The methods are known at once, and a call waits until the server is there.
        response = await running.client.post(f"{RPC}/GetBook", json={"name": "a"})
        assert response.json()["title"] == "Emma"
        one = (await running.client.get(RPC)).json()
        assert next(method for method in one["methods"] if method["name"] == "GetBook")["description"] == "Returns one book."


@pytest.mark.parametrize("by_set", [False, True])
async def test_default_values_are_there_where_that_is_asked_for(
    serve: Serve, library_server: library.Server, tmp_path: Path, by_set: bool
) -> None:
    service: dict[str, Any] = {"name": "library", "address": library_server.address, "default_values": True}
    if by_set:
        (tmp_path / "set").write_bytes(descriptor_set())
        service |= {"descriptor_set": tmp_path / "set", "services": ["test.library.v1.Library"]}
    async with serve(services=[service]) as running:
        await ready(running)
        book = (await running.client.post(f"{RPC}/CreateBook", json={"book": {"title": "A"}})).json()
        assert (book["pages"], book["authors"], book["genre"]) == ("0", [], "GENRE_UNSPECIFIED")


async def test_a_call_of_a_server_that_is_down_waits_in_the_queue_and_is_503(serve: Serve, tmp_path: Path) -> None:
    known = tmp_path / "library.set"
    known.write_bytes(descriptor_set())
    service = {"name": "library", "address": "127.0.0.1:1", "descriptor_set": known, "queue_timeout_s": 0.2, **QUICK}
    async with serve(services=[service]) as running:
        document = problem(await running.client.post(f"{RPC}/GetBook", json={}), 503, "no-workers-available")
        assert "127.0.0.1:1" in document["detail"]


# Looked at while it is away, and only when it is back: then the new connection is all there is to see.
@pytest.mark.parametrize("health_interval_s", [0.02, 1.0])
async def test_a_server_that_comes_back_as_another_one_is_asked_anew(
    serve: Serve, serve_library: ServeLibrary, health_interval_s: float
) -> None:
    server = await serve_library()
    service = {"name": "library", "address": server.address, **QUICK, "refresh_s": 3600, "health_interval_s": health_interval_s}
    async with serve(services=[service]) as running:
        await ready(running)
        assert "test.library.v1.Library/Renamed" not in await methods(running)
        before = set((await running.client.get("/openapi.json")).json()["paths"])
        await server.stop()
        await serve_library(server.address, reflected=changed())
        await until(lambda: "test.library.v1.Library/Renamed" in running.gateway.pools["library"].tools)
        await ready(running)
        assert "test.library.v1.Library/Renamed" in await methods(running)
        # The new field is known, and so is the new path.
        assert (await running.client.post(f"{RPC}/CreateBook", json={"book": {"title": "A", "subtitle": "b"}})).json()["subtitle"] == "b"
        after = set((await running.client.get("/openapi.json")).json()["paths"])
        assert after - before == {"/v1/rpc/test.library.v1.Library/Renamed"}
        assert (await running.client.get("/v1/library/shelves/1/books/emma")).json()["title"] == "Emma"


async def test_what_a_server_offers_is_asked_anew_now_and_then(serve: Serve, serve_library: ServeLibrary) -> None:
    known = Switching(library._reflected())
    server = await serve_library(reflected=known)
    service = {"name": "library", "address": server.address, **QUICK, "refresh_s": 0.05}
    async with serve(services=[service]) as running:
        await ready(running)
        await server.health.set("", 2)
        known.pool = changed()
        await until(lambda: "test.library.v1.Library/Renamed" in running.gateway.pools["library"].tools)
        # A server that says it isn't serving is there: what it says of itself is its clients' to read.
        assert running.gateway.pools["library"].readiness() == []
        assert (await running.client.post(f"{RPC}/GetBook", json={"name": "a"})).status_code == 200


async def test_no_more_calls_at_once_than_it_may_have(serve: Serve, library_server: library.Server) -> None:
    service = {"name": "library", "address": library_server.address, "concurrency": 1, "queue_limit": 1, "queue_timeout_s": 0.3}
    async with serve(services=[service]) as running:
        await ready(running)
        first = await raw(running, "POST", f"{RPC}/Count", b'{"pauseMs":5}', accept="text/event-stream")
        await first.until(b'{"number":1}')
        waiting = asyncio.ensure_future(running.client.post(f"{RPC}/GetBook", json={"name": "a"}))
        await until(lambda: running.gateway.pools["library"].snapshot()["queued"] == 1)
        problem(await running.client.post(f"{RPC}/GetBook", json={}), 503, "pool-saturated")
        assert problem(await within(waiting), 503, "queue-timeout")
        waiting = asyncio.ensure_future(running.client.post(f"{RPC}/GetBook", json={"name": "a"}))
        await until(lambda: running.gateway.pools["library"].snapshot()["queued"] == 1)
        first.cut()
        assert (await within(waiting)).status_code == 200


async def test_a_services_own_timeout_is_the_default(serve: Serve, library_server: library.Server) -> None:
    async with serve(services=[{"name": "library", "address": library_server.address, "timeout_s": 0.2}]) as running:
        await ready(running)
        problem(await running.client.post(f"{RPC}/Count", json={"pause_ms": 60_000}, headers=JSON), 504, "worker-timeout")
        start = messages((await running.client.post(f"{RPC}/Count", json={"to": 1}, headers=SSE)).content)[0][1]
        assert start["timeout_ms"] == 200
        asked = await running.client.post(f"{RPC}/Count", params={"_timeout_ms": "9000"}, json={"to": 1}, headers=SSE)
        assert messages(asked.content)[0][1]["timeout_ms"] == 9000


async def test_scopes_name_methods_and_services(serve: Serve, library_server: library.Server) -> None:
    reader = person("reader", "tools:test.library.v1.Library/GetBook")
    librarian = person("librarian", "tools:test.library.v1.Library/*")
    pooled = person("pooled", "pools:library")
    people = (ADA, EVE, ADMIN, reader, librarian, pooled)
    keys = auth(keys="\n".join(each.line for each in people))
    async with serve(services=[{"name": "library", "address": library_server.address}], auth=keys) as running:
        await ready(running)

        async def status(who: Any, path: str) -> int:
            return (await running.client.get(path, headers={**who.bearer, **JSON})).status_code

        book, shelf, annotated = f"{RPC}/GetBook", f"{RPC}/WatchShelf?limit=1", "/v1/library/shelves/1/books/a"
        health = "/v1/rpc/grpc.health.v1.Health/Watch"
        assert [await status(reader, path) for path in (book, annotated, shelf)] == [200, 200, 403]
        assert [await status(librarian, path) for path in (book, annotated, shelf, health)] == [200, 200, 200, 403]
        assert [await status(EVE, path) for path in (book, annotated, RPC, "/v1/rpc")] == [403, 403, 403, 200]
        assert [await status(who, book) for who in (ADA, ADMIN, pooled)] == [200, 200, 200]
        assert (await running.client.get(book, headers=JSON)).status_code == 401
        assert (await running.client.get(annotated, headers=JSON)).status_code == 401
        refused = problem(await running.client.get(book, headers=EVE.bearer), 403, "scope-missing")
        assert "tools:test.library.v1.Library/GetBook" in refused["detail"]
        listed = (await running.client.get("/v1/rpc", headers=reader.bearer)).json()["services"]
        assert [[method["name"] for method in service["methods"]] for service in listed] == [["GetBook"]]
        paths = (await running.client.get("/openapi.json", headers=reader.bearer)).json()["paths"]
        shown = {path for path in paths if "library" in path.lower()}
        assert shown == {f"{RPC}/GetBook", "/v1/library/{name}", "/v1/library/books/{name}"}


async def test_a_run_is_its_callers(serve: Serve, library_server: library.Server) -> None:
    bob = person("bob", "tools:*")
    keys = auth(keys="\n".join(each.line for each in (ADA, bob)))
    async with serve(services=[{"name": "library", "address": library_server.address}], auth=keys) as running:
        await ready(running)
        started = await running.client.post(f"{RPC}/Count", json={"to": 1}, headers={**ADA.bearer, "Prefer": "respond-async"})
        run = started.json()["run"]
        problem(await running.client.get(f"/v1/runs/{run}", headers=bob.bearer), 404, "run-not-found")


async def test_a_reload_adds_services_and_takes_them_away(library_server: library.Server) -> None:
    pools = (PoolSettings(addresses=("unix:/nowhere",)),)
    without = Settings(server=ServerSettings(grpc_address=""), pools=pools)
    with_it = without.model_copy(update={"services": (ServiceSettings(name="library", address=library_server.address),)})
    gateway = Gateway(without)
    async with gateway.run():
        # Once its first try to reach a worker is over, the pools run.
        await gateway.pools["default"].started()  # type: ignore[attr-defined]
        with pytest.raises(GatewayError, match="there is no service"):
            gateway.catalog.find("test.library.v1.Library/Count")
        await gateway.change_pools(with_it)
        assert gateway.pools["library"].readiness() == []
        assert gateway.catalog.find("test.library.v1.Library/Count").pool == "library"
        same = gateway.pools["library"]
        await gateway.change_pools(with_it)
        assert gateway.pools["library"] is same
        await gateway.change_pools(without)
        with pytest.raises(GatewayError, match="there is no service"):
            gateway.catalog.find("test.library.v1.Library/Count")


@pytest.mark.parametrize("transport", ["lane", "grpcio"])
async def test_a_connection_that_breaks_ends_its_calls_and_the_service_is_looked_for_at_once(
    serve: Serve, library_server: library.Server, transport: Any
) -> None:
    async with proxied(int(library_server.address.rpartition(":")[2])) as proxy:
        # Nobody would look for an hour, but for the break.
        service = {
            "name": "library",
            "address": f"127.0.0.1:{proxy.port}",
            "health_interval_s": 3600,
            "health_timeout_s": 0.5,
            "start_timeout_s": 2.0,
        }
        async with serve(services=[service], transport=transport) as running:
            await ready(running)
            pool = running.gateway.pools["library"]
            stream = await raw(running, "POST", f"{RPC}/Count", b'{"pauseMs":5}', accept="text/event-stream")
            await stream.until(b'{"number":2}')
            proxy.refuse()
            proxy.cut()
            end = await stream.until(b"event: end\ndata: ") + await stream.until(b"\n")
            assert b"/problems/service-lost" in end
            assert b'"retryable":true' in end
            await until(lambda: pool.readiness() != [])
            await proxy.restore()
            await ready(running)
            assert (await running.client.post(f"{RPC}/GetBook", json={"name": "a"})).status_code == 200
