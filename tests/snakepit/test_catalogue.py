"""What a Snakepit worker offers: how it is found out, and what is made of it."""

from __future__ import annotations

from tests.e2e.harness import Served
from tests.snakepit.conftest import told


def test_tools_come_from_the_registration_and_no_tool_was_run_for_them(gateway: Served) -> None:
    tools = {tool["name"]: tool for tool in gateway.client.get("/v1/tools").json()["tools"]}
    assert tools["count"]["supports_streaming"] is True
    assert tools["count"]["description"] == "Count."
    assert tools["add"]["supports_streaming"] is False
    assert "execute_tool" not in tools
    assert not [line for line in told(gateway) if line.startswith("execute gateway.register")]


def test_arguments_are_checked_by_the_registered_parameters(gateway: Served) -> None:
    schema = gateway.client.get("/v1/tools/add").json()["parameters"]
    assert schema["required"] == ["a"]
    assert schema["properties"]["b"]["default"] == 2
    assert schema["additionalProperties"] is True
    assert gateway.client.post("/v1/tools/add/call", json={"a": 40}).json()["result"] == 42.0
    wrong = gateway.client.post("/v1/tools/add/call", json={"a": "forty"})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "/a")
    assert gateway.client.post("/v1/tools/count/stream", json={"m": 1}).status_code == 422
