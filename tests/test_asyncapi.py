"""The AsyncAPI document against its official schema, and against what sockets really say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from websockets.asyncio.client import connect

from gateway.codec.websocket import CLIENT_FRAMES, SUBPROTOCOL
from gateway.serve import contracts
from gateway.settings import Settings
from tests.conftest import FakeCall, Running, within

ROOT = Path(__file__).resolve().parent.parent
OFFICIAL_SCHEMA = Path(sys.prefix) / "node/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of the demo adapter."""
    return contracts(Settings())["asyncapi.json"]


def problems_of(document: dict[str, Any], operation: str, message: Any) -> list[str]:
    """Why a message is none of those that an operation has; empty where it is one."""
    names = [entry["$ref"].rpartition("/")[2] for entry in document["operations"][operation]["messages"]]
    payloads = [{"$ref": f"#/components/messages/{name}/payload"} for name in names]
    validator = jsonschema_rs.validator_for({"anyOf": payloads, "components": document["components"]})
    return [error.message for error in validator.iter_errors(message)]


def test_document_is_valid_asyncapi_3(document: dict[str, Any]) -> None:
    if not OFFICIAL_SCHEMA.exists():
        pytest.skip("the official schema is not there: make .venv/.node (needs npm)")
    validator = jsonschema_rs.validator_for(json.loads(OFFICIAL_SCHEMA.read_text()))
    assert [f"{error.instance_path}: {error.message[:300]}" for error in validator.iter_errors(document)] == []


def test_committed_document_is_current(document: dict[str, Any]) -> None:
    assert json.loads((ROOT / "openapi" / "asyncapi.json").read_text()) == json.loads(json.dumps(document)), "run `make openapi`"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                target: Any = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for member in value.values():
                walk(member)
        elif isinstance(value, list):
            for member in value:
                walk(member)

    walk(document)


def test_every_frame_that_is_read_is_described(document: dict[str, Any]) -> None:
    payloads = [document["components"]["messages"][name]["payload"] for name in ("connectionInit", "subscribe", "attach", "credit")]
    assert [payload["properties"]["type"]["const"] for payload in payloads] == ["connection_init", "subscribe", "attach", "credit"]
    described = {
        document["components"]["messages"][entry["$ref"].rpartition("/")[2]]["payload"]["properties"]["type"]["const"]
        for entry in document["operations"]["receiveFrames"]["messages"]
    }
    assert described == set(CLIENT_FRAMES)


def test_a_tools_arguments_are_described(document: dict[str, Any]) -> None:
    frame = {"type": "subscribe", "id": "a", "payload": {"tool": "stream_numbers", "args": {"count": 5}, "timeout_ms": 1000}}
    assert problems_of(document, "receiveFrames", frame) == []
    for payload in ({"tool": "stream_numbers", "args": {"count": "many"}}, {"tool": "nowhere"}, {"tool": "stream_numbers", "argz": {}}):
        assert problems_of(document, "receiveFrames", frame | {"payload": payload}) != []
    assert "add" not in document["channels"]["tool"]["parameters"]["tool"]["enum"]


def count_then_fail(call: FakeCall) -> None:
    call.send(1, 2)
    if call.call.arguments.get("count") == 0:
        call.fail()
    else:
        call.end({"note": "x"})


async def test_what_a_socket_says_is_described(running: Running) -> None:
    document = (await running.client.get("/asyncapi.json")).json()
    running.pool.script = count_then_fail
    said = [
        {"type": "connection_init"},
        {"type": "ping"},
        {"type": "subscribe", "id": "a", "payload": {"tool": "count", "args": {"count": 3}, "credit": 64}},
        {"type": "subscribe", "id": "b", "payload": {"tool": "count", "args": {"count": 0}}},
        {"type": "attach", "id": "c", "payload": {"run": "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X", "from": 3}},
    ]
    assert [problems_of(document, "receiveFrames", frame) for frame in said] == [[]] * len(said)
    heard: list[dict[str, Any]] = []
    async with connect(f"{running.ws_url}/v1/ws", subprotocols=[SUBPROTOCOL], proxy=None) as socket:
        for frame in said:
            await socket.send(json.dumps(frame))
        while len([frame for frame in heard if frame["type"] in ("complete", "error")]) < 3:
            heard.append(json.loads(await within(socket.recv())))
    assert {frame["type"] for frame in heard} >= {"connection_ack", "pong", "start", "next", "complete", "error"}
    for frame in heard:
        assert problems_of(document, "sendFrames", frame) == [], frame


async def test_what_a_plain_socket_says_is_described(running: Running) -> None:
    document = (await running.client.get("/asyncapi.json")).json()
    running.pool.script = count_then_fail
    async with connect(f"{running.ws_url}/v1/tools/count/ws?count=3", proxy=None) as socket:
        heard = [json.loads(message) async for message in socket]
    assert [event["event"] for event in heard if event["event"] != "status"] == ["start", "message", "message", "end"]
    for event in heard:
        assert problems_of(document, "sendEvents", event) == [], event
