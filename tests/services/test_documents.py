"""What the OpenAPI documents say of gRPC services, held against what is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, OpenAPIV32SpecValidator

from tests.conftest import Running, Serve, until
from tests.services import library

RPC = "/v1/rpc/test.library.v1.Library"


@pytest.fixture
async def front(serve: Serve, library_server: library.Server) -> AsyncIterator[Running]:
    async with serve(services=[{"name": "library", "address": library_server.address}]) as running:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        yield running


@pytest.fixture
async def document(front: Running) -> dict[str, Any]:
    return dict((await front.client.get("/openapi.json")).json())


async def test_both_documents_are_valid(front: Running, document: dict[str, Any]) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    newer = (await front.client.get("/openapi-3.2.json")).json()
    assert [error.message for error in OpenAPIV32SpecValidator(newer).iter_errors()] == []
    watch = newer["paths"][f"{RPC}/WatchShelf"]["get"]["responses"]["200"]["content"]
    assert "itemSchema" in watch["text/event-stream"]


async def test_each_method_has_its_paths(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert set(paths[f"{RPC}/GetBook"]) == {"get", "post"}
    assert set(paths[f"{RPC}/CreateBook"]) == {"post"}
    assert set(paths[f"{RPC}/Chat"]) == {"post"}
    assert set(paths[f"{RPC}/Chat"]["post"]["requestBody"]["content"]) == {"application/x-ndjson"}
    assert set(paths["/v1/library/{parent}/books"]) == {"get", "post"}
    assert set(paths["/v1/library/{name}:move"]) == {"post"}
    parent = next(entry for entry in paths["/v1/library/{parent}/books"]["get"]["parameters"] if entry["in"] == "path")
    assert parent["schema"]["pattern"] == "^shelves/[^/]+$"
    listed = {entry["name"] for entry in paths["/v1/library/{parent}/books"]["get"]["parameters"]}
    assert {"page_size", "genres", "since", "_timeout_ms"} <= listed
    assert "parent" in listed
    assert paths[f"{RPC}/Headers"]["post"]["deprecated"] is True
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(ids) == len(set(ids))


async def test_answers_are_what_the_document_says(front: Running, document: dict[str, Any]) -> None:
    def schema_of(path: str, method: str) -> Any:
        found = document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
        return jsonschema_rs.validator_for({**found, "components": document["components"]})

    book = await front.client.get(f"{RPC}/GetBook", params={"name": "a"})
    assert schema_of(f"{RPC}/GetBook", "get").is_valid(book.json())
    assert not schema_of(f"{RPC}/GetBook", "get").is_valid({"pages": 3})
    listed = await front.client.get("/v1/library/shelves/1/books")
    assert schema_of("/v1/library/{parent}/books", "get").is_valid(listed.json())
    assert not schema_of("/v1/library/{parent}/books", "get").is_valid({"books": []})
    events = await front.client.get(f"{RPC}/WatchShelf", params={"limit": "2"}, headers={"Accept": "application/json"})
    assert schema_of(f"{RPC}/WatchShelf", "get").is_valid(events.json())
    assert not schema_of(f"{RPC}/WatchShelf", "get").is_valid({**events.json(), "chunks": [{"sequence": 1}]})


async def test_a_body_is_what_the_document_says(document: dict[str, Any]) -> None:
    body = document["paths"][f"{RPC}/Echo"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema_rs.validator_for({**body, "components": document["components"]})
    assert validator.is_valid({"scalars": {"anInt64": "5"}, "node": {"children": [{"name": "x"}]}})
    assert not validator.is_valid({"scalar": {}})


async def test_the_lists_are_what_the_document_says(front: Running, document: dict[str, Any]) -> None:
    for path, model in (("/v1/rpc", "RpcServiceList"), (RPC, "RpcServiceDescription")):
        reference = {"$ref": f"#/components/schemas/{model}", "components": document["components"]}
        validator = jsonschema_rs.validator_for(reference)
        answer = (await front.client.get(path)).json()
        assert [error.message for error in validator.iter_errors(answer)] == []
