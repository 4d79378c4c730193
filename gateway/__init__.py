"""Snakepit Gateway: Python functions that yield, as Server-Sent Events, WebSocket messages and JSON lines.

The names below are what programs use; each is imported when it is first asked for, so that a worker process
never loads the web server and a client never loads either.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gateway.app import create_app as create_app
    from gateway.client import AsyncClient as AsyncClient
    from gateway.client import Client as Client
    from gateway.hosttools.marking import host_tool as host_tool
    from gateway.runtime.adapter import BaseAdapter as BaseAdapter
    from gateway.runtime.chunk import StreamChunk as StreamChunk
    from gateway.runtime.failure import ToolError as ToolError
    from gateway.runtime.tool import tool as tool

_HOMES = {
    "AsyncClient": "gateway.client.aio",
    "BaseAdapter": "gateway.runtime.adapter",
    "Client": "gateway.client.client",
    "StreamChunk": "gateway.runtime.chunk",
    "ToolError": "gateway.runtime.failure",
    "tool": "gateway.runtime.tool",
    "create_app": "gateway.app",
    "host_tool": "gateway.hosttools.marking",
}

__all__ = ["AsyncClient", "BaseAdapter", "Client", "StreamChunk", "ToolError", "__version__", "create_app", "host_tool", "tool"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
