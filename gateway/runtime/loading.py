"""Finds the adapter class that `--adapter` names.

Called once by serve.py, after compat.install(). Three forms: `package.module:Class`, Snakepit's
`package.module.Class`, and `path/to/file.py` with `:Class` or the one adapter class in it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.tool import ToolSpec, discover


class AdapterNotLoaded(Exception):
    """The text says what was asked for, what went wrong, and what there is instead."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter class and its tools. `name` is `module:Class`."""

    name: str
    type: type[Any]
    tools: Mapping[str, ToolSpec]

    @property
    def allows_concurrency(self) -> bool:
        """More than one execution at once is safe: its author says so, or nothing runs on threads."""
        return getattr(self.type, "__thread_safe__", False) is True or all(tool.is_async for tool in self.tools.values())


def load(target: str) -> LoadedAdapter:
    """Import and inspect the adapter class that `target` names.

    Raises:
        AdapterNotLoaded: there is no such module, file or class, it has no tools, or the choice is not clear.
        Exception: whatever the user's module raises while it is imported.
    """
    path, separator, class_name = target.rpartition(":")
    if not separator or class_name.endswith(".py"):
        path, class_name = target, ""
    if path.endswith(".py"):
        module = _import_file(Path(path))
        adapter = _named(module, class_name, target) if class_name else _only(module)
    else:
        if not class_name:
            path, _, class_name = target.rpartition(".")
        if not path or not class_name:
            raise AdapterNotLoaded(f"adapter {target!r} names no class: write module:Class, module.Class or path/to/file.py")
        adapter = _named(_import_module(path, target), class_name, target)
    return inspect_adapter(adapter)


def inspect_adapter(adapter: type[Any]) -> LoadedAdapter:
    """Return what is known about an adapter class.

    Raises:
        AdapterNotLoaded: it has no tools.
    """
    tools = discover(adapter)
    if not tools:
        raise AdapterNotLoaded(f"adapter {adapter.__qualname__} has no tools: mark its methods with @tool")
    return LoadedAdapter(f"{adapter.__module__}:{adapter.__qualname__}", adapter, tools)


def _import_module(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only if the adapter's own module is missing; what that module itself misses is the user's to see.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise AdapterNotLoaded(f"adapter {target!r}: there is no module {error.name!r} on the path {sys.path}") from None
        raise


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise AdapterNotLoaded(f"there is no adapter file {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # A file called like a module that is already there must not replace it.
    name = path.stem if path.stem not in sys.modules and path.stem not in sys.stdlib_module_names else f"adapter_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AdapterNotLoaded(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    # Before it runs: dataclasses and pickles look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _named(module: ModuleType, class_name: str, target: str) -> type[Any]:
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        there = ", ".join(candidate.__name__ for candidate in _candidates(module)) or "none"
        raise AdapterNotLoaded(f"adapter {target!r}: module {module.__name__} has no class {class_name}; adapter classes in it: {there}")
    return found


def _only(module: ModuleType) -> type[Any]:
    candidates = _candidates(module)
    if len(candidates) == 1:
        return candidates[0]
    path = module.__file__
    if not candidates:
        raise AdapterNotLoaded(f"{path} has no adapter class: derive one from BaseAdapter and mark its methods with @tool")
    names = [candidate.__name__ for candidate in candidates]
    raise AdapterNotLoaded(f"{path} has several adapter classes: {', '.join(names)}; name one, as in {path}:{names[0]}")


def _candidates(module: ModuleType) -> list[type[Any]]:
    """Return the adapter classes that the module itself defines: those with tools, else those derived from BaseAdapter."""
    own = [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__]
    with_tools = [value for value in own if any(hasattr(member, "_tool_metadata") for _, member in inspect.getmembers(value))]
    return list(dict.fromkeys(with_tools or [value for value in own if issubclass(value, BaseAdapter)]))
