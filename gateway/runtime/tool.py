"""Which methods of an adapter class are tools, and what a caller may know about them.

`@tool` marks a method; discover() reads the marks when the worker starts. The mark is the attribute
`_tool_metadata`, as in Snakepit, and is found by name, so classes written with the real `snakepit_bridge`
decorators work as well.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import docstring_parser

from gateway.runtime.schema import Parameters

logger = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(slots=True)
class ToolMetadata:
    """What `@tool` was given."""

    description: str = ""
    supports_streaming: bool = False
    required_variables: Sequence[str] = ()


def tool(
    description: str = "", supports_streaming: bool = False, required_variables: Sequence[str] | None = None
) -> Callable[[Function], Function]:
    """Offer a method as a tool.

    `description` is what callers read; without one it is the docstring's summary. `supports_streaming` is for
    methods that yield (`def` or `async def`): each yield becomes a chunk. `required_variables` is passed on to
    a Snakepit host as it is.
    """

    def mark(function: Function) -> Function:
        metadata = ToolMetadata(description, supports_streaming, tuple(required_variables or ()))
        # A staticmethod or classmethod hides attributes of its own; its function's are seen.
        target: Any = getattr(function, "__func__", function)
        target._tool_metadata = metadata
        return function

    return mark


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool of an adapter class.

    `is_async`: its body runs on the event loop (`async def`, with or without yield), else on a thread.
    `yields`: it is written as a generator.
    """

    name: str
    description: str
    supports_streaming: bool
    required_variables: tuple[str, ...]
    parameters: Parameters
    is_async: bool
    yields: bool

    @property
    def contradiction(self) -> str | None:
        """What is wrong where `@tool` says one thing and the function's form another; None where they agree.

        Only what can be known without calling it: a plain function may still return an iterator.
        """
        if self.yields and not self.supports_streaming:
            return f"Tool {self.name} yields, but is not marked as streaming: write @tool(supports_streaming=True), or return a value"
        return None


def discover(adapter: type[Any]) -> dict[str, ToolSpec]:
    """Return the tools of a class by name, base classes first, each in order of definition.

    A method that is overridden without `@tool` is no tool any more. Contradictions are logged; they become
    errors when the tool is called, so that one wrong tool does not take the others away.
    """
    tools: dict[str, ToolSpec] = {}
    names = (name for base in reversed(adapter.__mro__) for name in vars(base))
    for name in dict.fromkeys(names):
        metadata = getattr(getattr(adapter, name, None), "_tool_metadata", None)
        if metadata is None:
            continue
        spec = tools[name] = _spec(adapter, name, metadata)
        if spec.contradiction:
            logger.warning("%s", spec.contradiction)
        elif spec.supports_streaming and not spec.yields:
            logger.warning("Tool %s is marked as streaming, but is not written as a generator", name)
    return tools


def _spec(adapter: type[Any], name: str, metadata: Any) -> ToolSpec:
    function = getattr(adapter, name)
    if inspect.isfunction(inspect.getattr_static(adapter, name)):
        # As the tool will be called, without its self; no instance exists yet.
        function = function.__get__(object())
    body = inspect.unwrap(getattr(function, "__func__", function))
    doc = docstring_parser.parse(inspect.getdoc(function) or "")
    described = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in doc.params}
    return ToolSpec(
        name=name,
        description=metadata.description or doc.short_description or "",
        supports_streaming=bool(metadata.supports_streaming),
        required_variables=tuple(getattr(metadata, "required_variables", None) or ()),
        parameters=Parameters(name, function, described),
        is_async=inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body),
        yields=inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body),
    )
