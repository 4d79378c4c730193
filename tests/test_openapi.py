from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.serve import openapi_document
from gateway.settings import Settings
from tests.conftest import Running

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of the demo adapter."""
    return openapi_document(Settings())


def test_document_is_valid_openapi_31(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_committed_document_is_current(document: dict[str, Any]) -> None:
    committed = json.loads((ROOT / "openapi" / "openapi.json").read_text())
    assert committed == json.loads(json.dumps(document)), "run `make openapi`"


def test_each_demo_tool_has_its_own_path_with_its_arguments(document: dict[str, Any]) -> None:
    paths = document["paths"]
    stream = paths["/v1/tools/train_with_progress/stream"]
    epochs = next(entry for entry in stream["get"]["parameters"] if entry["name"] == "epochs")
    assert (epochs["in"], epochs["schema"]["type"], epochs["schema"]["default"]) == ("query", "integer", 10)
    body = stream["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["epochs"]["type"] == "integer"
    assert set(stream["post"]["responses"]["200"]["content"]) == {
        "text/event-stream",
        "application/x-ndjson",
        "application/jsonl",
        "application/json",
    }
    assert "/v1/tools/add/call" in paths
    assert "/v1/tools/add/stream" not in paths


def test_every_operation_id_is_its_own(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


def test_every_operation_describes_its_problems(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            assert "application/problem+json" in operation["responses"]["default"]["content"]


async def test_served_document_names_the_tools_of_the_moment(running: Running) -> None:
    served = (await running.client.get("/openapi.json")).json()
    assert {"/v1/tools/count/stream", "/v1/tools/typed/stream", "/v1/tools/add/call"} <= set(served["paths"])
    # A schema's own $defs are written out: a reference from here would lead nowhere.
    sizes = next(entry for entry in served["paths"]["/v1/tools/typed/stream"]["get"]["parameters"] if entry["name"] == "size")
    assert sizes["schema"] == {"enum": [1, 2, 3]}
