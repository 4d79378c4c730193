"""tool.py and schema.py: what is a tool, its JSON Schema, and the conversion of its arguments."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional
from uuid import UUID

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel, Field

from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.failure import InvalidArguments
from gateway.runtime.tool import ToolSpec, discover, tool

if TYPE_CHECKING:
    from decimal import Decimal


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Size:
    width: int
    height: int = 1


class Model(BaseModel):
    name: str
    layers: list[int] = Field(default_factory=list)


class Unknown:
    """A class that pydantic knows nothing about."""


class Tools(BaseAdapter):
    @tool()
    def everything(
        self,
        integer: int,
        number: float,
        text: str = "t",
        flag: bool = False,
        items: list[int] = [1],  # noqa: B006
        table: dict[str, float] | None = None,
        maybe: Optional[int] = None,  # noqa: UP045
        implicit: int = None,  # type: ignore[assignment] # noqa: RUF013
        choice: Literal["a", "b"] = "a",
        mode: Mode = Mode.FAST,
        size: Size = Size(1),  # noqa: B008
        model: Model | None = None,
        day: date | None = None,
        key: UUID | None = None,
        small: Annotated[int, Field(ge=0, lt=10)] = 0,
        plain: list = [],  # type: ignore[type-arg] # noqa: B006
        anything=None,  # type: ignore[no-untyped-def]
        *,
        only_named: tuple[int, str] = (1, "a"),
    ) -> None:
        """Do everything at once.

        More words that are no summary.

        Args:
            integer: A whole number,
                over two lines.
            text (str): Some text.
        """

    @tool(description="As given", supports_streaming=True, required_variables=["a", "b"])
    def stream(self) -> Iterator[int]:
        """Not this."""
        yield 1

    @tool()
    def open(self, a: int, **kwargs: Any) -> None: ...

    @tool()
    def positional(self, a: int, b: int = 2, /, c: int = 3) -> None: ...

    @tool()
    def odd(self, array: np.ndarray, thing: Unknown, later: Decimal, ok: int = 1) -> None: ...

    @tool()
    def odd_default(self, thing: Any = object(), model_config: int = 1, _private: int = 2, schema: int = 3) -> None: ...  # noqa: B008

    @tool()
    async def coroutine(self) -> None: ...

    @tool(supports_streaming=True)
    async def agen(self) -> AsyncIterator[int]:
        yield 1

    @tool()
    @staticmethod
    def static(a: int) -> None: ...

    @classmethod
    @tool()
    def of_class(cls, a: int) -> None: ...

    def no_tool(self) -> None: ...


@pytest.fixture(scope="module")
def tools() -> dict[str, ToolSpec]:
    return discover(Tools)


def test_marked_methods_are_tools_in_order_of_definition(tools: dict[str, ToolSpec]) -> None:
    assert list(tools) == [
        "everything",
        "stream",
        "open",
        "positional",
        "odd",
        "odd_default",
        "coroutine",
        "agen",
        "static",
        "of_class",
    ]


def test_inherited_tools_count_and_an_override_without_the_mark_is_none() -> None:
    class Child(Tools):
        def stream(self) -> Iterator[int]:  # type: ignore[override]
            yield 2

        @tool()
        def extra(self) -> None: ...

    names = list(discover(Child))
    assert "stream" not in names
    assert names[-1] == "extra"
    assert "open" in names


def test_mark_of_another_package_is_found_by_its_name() -> None:
    class ForeignMetadata:
        description = "foreign"
        supports_streaming = True

    def foreign_tool(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        wrapper._tool_metadata = ForeignMetadata()  # type: ignore[attr-defined]
        return wrapper

    class Foreign:
        @foreign_tool
        def numbers(self, count: int = 3) -> Iterator[int]:
            yield from range(count)

    spec = discover(Foreign)["numbers"]
    assert (spec.description, spec.supports_streaming, spec.yields, spec.is_async) == ("foreign", True, True, False)
    assert list(spec.parameters.schema["properties"]) == ["count"]


def test_description_is_the_given_one_else_the_docstrings_summary(tools: dict[str, ToolSpec]) -> None:
    assert tools["stream"].description == "As given"
    assert tools["everything"].description == "Do everything at once."
    assert tools["open"].description == ""
    assert tools["stream"].required_variables == ("a", "b")


def test_form_of_the_function_is_known(tools: dict[str, ToolSpec]) -> None:
    assert [(tools[name].is_async, tools[name].yields) for name in ("open", "stream", "coroutine", "agen")] == [
        (False, False),
        (False, True),
        (True, False),
        (True, True),
    ]


def test_schema_describes_types_defaults_and_texts(tools: dict[str, ToolSpec]) -> None:
    schema = tools["everything"].parameters.schema
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    fields = schema["properties"]
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["integer", "number"]
    assert fields["integer"] == {"type": "integer", "description": "A whole number, over two lines."}
    assert fields["number"] == {"type": "number"}
    assert fields["text"] == {"type": "string", "default": "t", "description": "Some text."}
    assert fields["flag"] == {"type": "boolean", "default": False}
    assert fields["items"] == {"type": "array", "items": {"type": "integer"}, "default": [1]}
    assert fields["plain"] == {"type": "array", "items": {}, "default": []}
    assert fields["maybe"]["anyOf"] == fields["implicit"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert fields["choice"]["enum"] == ["a", "b"]
    assert fields["mode"]["default"] == "fast"
    assert fields["size"]["default"] == {"width": 1, "height": 1}
    assert fields["day"]["anyOf"][0] == {"type": "string", "format": "date"}
    assert (fields["small"]["minimum"], fields["small"]["exclusiveMaximum"]) == (0, 10)
    assert fields["anything"] == {"default": None}


def test_schema_of_no_parameters_is_an_empty_object(tools: dict[str, ToolSpec]) -> None:
    assert tools["coroutine"].parameters.schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


def test_kwargs_open_the_schema_and_are_passed_on(tools: dict[str, ToolSpec]) -> None:
    assert tools["open"].parameters.schema["additionalProperties"] is True
    assert list(tools["open"].parameters.schema["properties"]) == ["a"]
    assert tools["open"].parameters.bind({"a": "1", "more": [2]}) == ([], {"a": 1, "more": [2]})


def test_arguments_are_converted_to_the_annotations(tools: dict[str, ToolSpec]) -> None:
    given = {
        "integer": "7",
        "number": 1,
        "mode": "slow",
        "size": {"width": 3},
        "model": {"name": "m", "layers": ["1"]},
        "day": "2026-01-02",
        "key": "00000000-0000-0000-0000-000000000001",
        "implicit": None,
        "only_named": [2, "b"],
        "table": {"a": 1},
    }
    positional, named = tools["everything"].parameters.bind(given)
    assert positional == []
    assert named == {
        "integer": 7,
        "number": 1.0,
        "mode": Mode.SLOW,
        "size": Size(3),
        "model": Model(name="m", layers=[1]),
        "day": date(2026, 1, 2),
        "key": UUID(int=1),
        "implicit": None,
        "only_named": (2, "b"),
        "table": {"a": 1.0},
    }


def test_parameter_that_is_not_given_is_left_to_the_functions_default(tools: dict[str, ToolSpec]) -> None:
    assert tools["everything"].parameters.bind({"integer": 1, "number": 2.5}) == ([], {"integer": 1, "number": 2.5})


def test_positional_only_parameters_are_passed_by_position(tools: dict[str, ToolSpec]) -> None:
    assert tools["positional"].parameters.bind({"a": 1, "b": 5, "c": 6}) == ([1, 5], {"c": 6})


def test_annotation_without_a_json_meaning_takes_anything(tools: dict[str, ToolSpec]) -> None:
    given = {"array": [1, 2], "thing": {"a": 1}, "later": "1.5", "ok": 2}
    assert tools["odd"].parameters.bind(given) == ([], given)
    assert tools["odd"].parameters.schema["properties"]["array"] == {}
    with pytest.raises(InvalidArguments):
        tools["odd"].parameters.bind({**given, "ok": "x"})


def test_unresolvable_annotation_is_logged_and_takes_anything(caplog: pytest.LogCaptureFixture) -> None:
    discover(Tools)
    assert "tool odd: an annotation can't be resolved" in caplog.text


def test_default_without_a_json_form_is_left_out_and_any_name_is_allowed(tools: dict[str, ToolSpec]) -> None:
    parameters = tools["odd_default"].parameters
    assert parameters.schema["properties"]["thing"] == {}
    assert parameters.bind({"model_config": 4, "_private": 5, "schema": 6}) == ([], {"model_config": 4, "_private": 5, "schema": 6})


def test_static_and_class_methods_lose_no_parameter(tools: dict[str, ToolSpec]) -> None:
    assert list(tools["static"].parameters.schema["properties"]) == ["a"]
    assert list(tools["of_class"].parameters.schema["properties"]) == ["a"]


def test_wrong_arguments_are_all_named_with_json_pointers(tools: dict[str, ToolSpec]) -> None:
    with pytest.raises(InvalidArguments) as caught:
        tools["everything"].parameters.bind({"integer": 1.5, "items": [1, "x"], "choice": "c", "model": {}, "a/b~c": 1})
    assert {error.field for error in caught.value.errors} == {
        "/integer",
        "/number",
        "/items/1",
        "/choice",
        "/model/name",
        "/a~1b~0c",
    }


def test_contradictions_are_logged_when_the_adapter_is_read(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(BaseAdapter):
        @tool()
        def unmarked(self) -> Iterator[int]:
            yield 1

        @tool(supports_streaming=True)
        def not_a_generator(self) -> list[int]:
            return [1]

    caplog.set_level(logging.WARNING)
    discover(Wrong)
    assert "Tool unmarked yields, but is not marked as streaming" in caplog.text
    assert "Tool not_a_generator is marked as streaming, but is not written as a generator" in caplog.text


def test_parameters_have_snakepits_type_names(tools: dict[str, ToolSpec]) -> None:
    types = {parameter.name: parameter.type for parameter in tools["everything"].parameters.each}
    assert (types["integer"], types["number"], types["text"], types["plain"], types["anything"]) == ("int", "float", "str", "list", "any")


def test_adapter_lists_and_calls_its_own_tools() -> None:
    class Small(BaseAdapter):
        @tool()
        def double(self, n: int) -> int:
            return 2 * n

    assert [spec.name for spec in Small().get_tools()] == ["double"]
    assert Small().call_tool("double", n=4) == 8
