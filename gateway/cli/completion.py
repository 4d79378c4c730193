"""What a shell offers after TAB: the tools of the gateway that would be asked, and the names of a tool's arguments.

A gateway that isn't there, or is slow, offers nothing: a prompt must not hang, nor show an error.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import typer

from gateway.client.connection import address

_PATIENCE_S = 0.5


def tools(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the tools whose names begin so, with their descriptions."""
    catalogue = _ask(ctx, "/v1/tools") or {}
    return [(tool["name"], tool["description"]) for tool in catalogue.get("tools", ()) if tool["name"].startswith(incomplete)]


def arguments(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the tool's arguments whose names begin so, with their descriptions; none once the value has begun."""
    tool = ctx.params.get("tool")
    if not tool or "=" in incomplete:
        return []
    properties = ((_ask(ctx, f"/v1/tools/{quote(tool, safe='')}") or {}).get("parameters") or {}).get("properties", {})
    return [(f"{name}=", field.get("description", "")) for name, field in properties.items() if name.startswith(incomplete)]


def _ask(ctx: typer.Context, path: str) -> Any:
    try:
        options = address(ctx.params.get("url"), ctx.params.get("key"), True, None).options()
        with httpx.Client(**{**options, "timeout": _PATIENCE_S}) as client:
            return client.get(path).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return None
