"""Finds the functions that the setting `host_tools` names: `module:function`, `file.py:function`, a module or a file.

A module or a file alone stands for its functions that are marked with `@host_tool`. Called when the gateway starts and again on a
reload, from a thread: whatever the modules do when they are imported, no stream waits for it. A file is executed anew each time,
a module reloaded; calls that run go on with the function they began with.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import docstring_parser

from gateway.codec.signature import Parameters
from gateway.codec.toolname import RULE, is_tool_name
from gateway.codec.values import json_bytes
from gateway.hosttools.marking import ATTRIBUTE, Mark
from gateway.rpc import snakepit_bridge_pb2 as pb

TOOLS_LIMIT = 1000


class HostToolsNotLoaded(Exception):
    """The text says which entry of the setting is wrong, and what there is instead."""


@dataclass(frozen=True, slots=True)
class HostTool:
    """One function. `is_async`: a coroutine function, else it runs on a thread. `source` is the setting's entry that named it."""

    name: str
    description: str
    parameters: Parameters
    function: Callable[..., Any]
    is_async: bool
    source: str

    def spec(self) -> pb.ToolSpec:
        """Return what a worker is told of it."""
        return pb.ToolSpec(name=self.name, description=self.description, parameters=self.parameters.specs())


def load(targets: Sequence[str], *, again: bool = False) -> Mapping[str, HostTool]:
    """Return the host tools by name, in order. `again`: modules that are there already are reloaded.

    Raises:
        HostToolsNotLoaded: an entry names nothing that can be used, or two name the same tool.
    """
    tools: dict[str, HostTool] = {}
    modules: dict[str, ModuleType] = {}
    for target in targets:
        where, _, function_name = target.partition(":")
        if where not in modules:
            modules[where] = _import(where, target, again=again)
        for name, function in _functions(modules[where], function_name, target):
            tool = _tool(name, function, target)
            if tool.name in tools:
                raise HostToolsNotLoaded(f"host_tools: {target!r} and {tools[tool.name].source!r} both offer a tool {tool.name!r}")
            tools[tool.name] = tool
    if len(tools) > TOOLS_LIMIT:
        raise HostToolsNotLoaded(f"host_tools: there are {len(tools)} tools, the limit is {TOOLS_LIMIT}")
    return tools


def _import(where: str, target: str, *, again: bool) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _import_file(Path(where), target)
        known = sys.modules.get(where)
        return importlib.reload(known) if again and known is not None else importlib.import_module(where)
    except HostToolsNotLoaded:
        raise
    except (Exception, SystemExit) as exc:
        # Whatever somebody's module raises: the operator reads it.
        raise HostToolsNotLoaded(f"host_tools: {target!r} can't be imported: {type(exc).__name__}: {exc}") from exc


def _import_file(path: Path, target: str) -> ModuleType:
    if not path.is_file():
        raise HostToolsNotLoaded(f"host_tools: {target!r}: there is no file {path}")
    path = path.resolve()
    if str(path.parent) not in sys.path:
        # It may import its neighbours; what is installed goes first.
        sys.path.append(str(path.parent))
    name = f"host_tools_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise HostToolsNotLoaded(f"host_tools: {path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses look their module up by name. A version before this one stays with whoever runs in it.
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        # Not through the loader, which would take an old version out of its cache where two are saved within a second.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except BaseException:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    return module


def _functions(module: ModuleType, name: str, target: str) -> list[tuple[str, Any]]:
    """Return the functions that an entry names, by their names in the module."""
    marked = [(key, value) for key, value in vars(module).items() if isinstance(getattr(value, ATTRIBUTE, None), Mark)]
    if name:
        function = getattr(module, name, None)
        if not callable(function) or inspect.isclass(function):
            there = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")) or "none"
            raise HostToolsNotLoaded(f"host_tools: {target!r}: there is no function {name!r}; functions there: {there}")
        return [(name, function)]
    if not marked:
        raise HostToolsNotLoaded(f"host_tools: {target!r} has no function marked with @host_tool; mark one, or name it: {target}:function")
    return marked


def _tool(name: str, function: Callable[..., Any], target: str) -> HostTool:
    mark: Mark = getattr(function, ATTRIBUTE, Mark())
    name = mark.name or name
    if not is_tool_name(name):
        raise HostToolsNotLoaded(f"host_tools: {target!r}: {name[:80]!r} can't be a tool's name; allowed: {RULE}")
    body = inspect.unwrap(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise HostToolsNotLoaded(f"host_tools: {target!r}: {name} yields; a host tool returns one value")
    doc = docstring_parser.parse(inspect.getdoc(function) or "")
    described = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in doc.params}
    try:
        parameters = Parameters(name, function, described, _default)
    except (TypeError, ValueError) as exc:
        raise HostToolsNotLoaded(f"host_tools: {target!r}: the parameters of {name} can't be read: {exc}") from exc
    return HostTool(
        name=name,
        description=mark.description or doc.short_description or "",
        parameters=parameters,
        function=function,
        is_async=inspect.iscoroutinefunction(body),
        source=target,
    )


def _default(value: Any) -> bytes | None:
    try:
        return json_bytes(value)
    except (TypeError, ValueError, RecursionError):
        return None
