"""Parameters as Snakepit's adapters register them, as JSON Schema."""

from __future__ import annotations

import pytest

from gateway.rpc.snakepit_bridge_pb2 import ParameterSpec, ToolRegistration
from gateway.workers.registered import registered_tools, schema_of


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("str", {"type": "string"}),
        ("bool", {"type": "boolean"}),
        ("dict", {"type": "object"}),
        ("list", {"type": "array"}),
        ("any", {}),
        ("ndarray", {}),
        ("", {}),
    ],
)
def test_annotations_name_is_the_type(annotation: str, schema: dict[str, object]) -> None:
    found = schema_of([ParameterSpec(name="x", type=annotation, required=True)])
    assert found == {"type": "object", "properties": {"x": schema}, "additionalProperties": False, "required": ["x"]}


def test_default_is_in_validation_json_and_none_may_be_given() -> None:
    found = schema_of(
        [
            ParameterSpec(name="n", type="int", validation_json='{"default": 3}'),
            ParameterSpec(name="m", type="int", description="How many", validation_json='{"default": null}'),
            ParameterSpec(name="odd", type="int", validation_json="[broken"),
        ]
    )
    assert found["properties"] == {
        "n": {"type": "integer", "default": 3},
        "m": {"type": ["integer", "null"], "description": "How many", "default": None},
        "odd": {"type": "integer"},
    }
    assert "required" not in found


def test_keyword_arguments_open_the_schema_and_positional_ones_are_never_required() -> None:
    found = schema_of([ParameterSpec(name="args", type="any", required=True), ParameterSpec(name="kwargs", type="any", required=True)])
    assert found == {"type": "object", "properties": {"args": {}}, "additionalProperties": True}


def test_tool_is_what_was_registered_and_the_executor_is_none() -> None:
    tools = registered_tools(
        [
            ToolRegistration(name="s", description="Streams", supports_streaming=True, metadata={"required_variables": "a,b"}),
            ToolRegistration(name="m", metadata={"supports_streaming": "true"}),
            ToolRegistration(name="u"),
            ToolRegistration(name="execute_tool"),
        ],
        "p",
    )
    assert {name: tool.supports_streaming for name, tool in tools.items()} == {"s": True, "m": True, "u": False}
    assert (tools["s"].description, tools["s"].required_variables, tools["s"].pool) == ("Streams", ("a", "b"), "p")


def test_schema_that_can_not_be_used_is_none() -> None:
    deep = '{"default":' + "[" * 100 + "]" * 100 + "}"
    tools = registered_tools([ToolRegistration(name="t", parameters=[ParameterSpec(name="x", validation_json=deep)])], "p")
    assert tools["t"].parameters is None
