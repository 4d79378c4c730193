from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, OpenAPIV32SpecValidator

from gateway.serve import contracts
from gateway.settings import Settings
from tests.codec.eventsource import EventSource
from tests.conftest import FakeCall, Running

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of the demo adapter."""
    return contracts(Settings())["openapi.json"]


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    """The document of the demo adapter that says what its streams are made of."""
    return contracts(Settings())["openapi-3.2.json"]


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


def test_document_with_items_is_valid_openapi_32(contract: dict[str, Any]) -> None:
    assert contract["openapi"] == "3.2.0"
    assert [error.message for error in OpenAPIV32SpecValidator(contract).iter_errors()] == []


def test_committed_document_with_items_is_current(contract: dict[str, Any]) -> None:
    committed = json.loads((ROOT / "openapi" / "openapi-3.2.json").read_text())
    assert committed == json.loads(json.dumps(contract)), "run `make openapi`"


async def test_what_a_stream_says_is_what_its_items_are(running: Running) -> None:
    contract = (await running.client.get("/openapi-3.2.json")).json()
    content = contract["paths"]["/v1/tools/count/stream"]["get"]["responses"]["200"]["content"]

    def errors(kind: str, item: Any) -> list[str]:
        validator = jsonschema_rs.validator_for(content[kind]["itemSchema"] | {"components": contract["components"]})
        return [error.message for error in validator.iter_errors(item)]

    def script(call: FakeCall) -> None:
        call.send(1, {"a": "b"})
        call.end()

    running.pool.script = script
    answer = await running.client.get("/v1/tools/count/stream", headers={"Accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in answer.text.splitlines() if line]
    assert [next(iter(line)) for line in lines if "status" not in line] == ["start", "seq", "seq", "end"]
    for line in lines:
        assert errors("application/x-ndjson", line) == [], line
    assert errors("application/x-ndjson", {"seq": 0, "data": 1}) != []
    answer = await running.client.get("/v1/tools/count/stream")
    source = EventSource()
    source.feed(answer.content)
    for message in source.messages:
        assert errors("text/event-stream", {"event": message.event, "id": message.last_event_id, "data": message.data}) == [], message
    assert errors("text/event-stream", {"event": "error", "data": "{}"}) != []


async def test_what_an_events_data_holds_is_described(running: Running) -> None:
    """The data of an event is text that holds JSON, which validators don't look into: here we do."""
    contract = (await running.client.get("/openapi-3.2.json")).json()
    by_name = {
        entry["properties"]["event"]["const"]: entry["properties"]["data"]["contentSchema"]
        for entry in contract["components"]["schemas"]["ServerSentEvent"]["oneOf"]
    }

    def script(call: FakeCall) -> None:
        call.send(1)
        call.fail()

    running.pool.script = script
    source = EventSource()
    source.feed((await running.client.get("/v1/tools/count/stream")).content)
    assert {message.event for message in source.messages} >= {"start", "message", "end"}
    for message in source.messages:
        validator = jsonschema_rs.validator_for(by_name[message.event] | {"components": contract["components"]})
        assert [error.message for error in validator.iter_errors(json.loads(message.data))] == [], message
