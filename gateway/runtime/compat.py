"""Lets adapters written for Snakepit run where Snakepit's own Python package is not installed.

install() is called by serve.py before the adapter is imported. It offers the modules of `snakepit_bridge` that
adapters import from, with the runtime's own classes in them. The finder stands last on sys.meta_path: a really
installed `snakepit_bridge` is found before it, and then nothing of it is replaced or added to.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from gateway.runtime.adapter import BaseAdapter
from gateway.runtime.chunk import StreamChunk
from gateway.runtime.session import SessionContext
from gateway.runtime.tool import ToolMetadata, tool

_ROOT = "snakepit_bridge"
_MODULES: Mapping[str, Mapping[str, Any]] = {
    _ROOT: {"BaseAdapter": BaseAdapter, "tool": tool, "SessionContext": SessionContext},
    f"{_ROOT}.base_adapter": {"BaseAdapter": BaseAdapter, "tool": tool, "ToolMetadata": ToolMetadata},
    f"{_ROOT}.session_context": {"SessionContext": SessionContext},
    f"{_ROOT}.adapters": {},
    f"{_ROOT}.adapters.showcase": {},
    f"{_ROOT}.adapters.showcase.tool": {"StreamChunk": StreamChunk, "tool": tool},
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and fills the modules above."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        root = sys.modules.get(_ROOT)
        if fullname != _ROOT and (root is None or root.__spec__ is None or root.__spec__.loader is not self):
            # The real package, of a version that lacks this module.
            return None
        is_package = any(name.startswith(f"{fullname}.") for name in _MODULES)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__])
        module.__doc__ = "Snakepit's adapter API, as the gateway's worker provides it."


_FINDER = _Finder()


def install() -> None:
    """Offer the modules from now on. Idempotent."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
