"""`gateway tools` and `gateway call`."""

from __future__ import annotations

import base64
import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from gateway.cli import arguments as words
from gateway.cli.options import DEFAULT_URL, Arguments, Key, Pool, Session, Timeout, Tool, Url
from gateway.cli.terminal import INTERRUPTED, connected, show_table
from gateway.client import Client


def tools(
    url: Url = DEFAULT_URL, key: Key = None, as_json: Annotated[bool, typer.Option("--json", help="The catalogue as JSON.")] = False
) -> None:
    """List the tools of a gateway."""
    with connected(url, key) as client:
        found = client.tools()
    if as_json:
        print_json({"tools": found})
        return
    table = Table("tool", "streams", "pool", "arguments", "description", box=None)
    streams = {True: "yes", False: "no", None: "?"}
    for entry in found:
        parameters = ", ".join((entry["parameters"] or {}).get("properties", {}))
        table.add_row(entry["name"], streams[entry["supports_streaming"]], entry["pool"], parameters, entry["description"])
    show_table(table)


def call(
    tool: Tool,
    arguments: Arguments = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    pool: Pool = None,
    session: Session = None,
    timeout: Timeout = None,
) -> None:
    """Execute a unary tool and print its result as JSON."""
    try:
        with connected(url, key) as client:
            values = read_arguments(client, tool, pool, arguments)
            print_json(client.call(tool, values, pool=pool, session_id=session, timeout_s=timeout))
    except KeyboardInterrupt:
        # Its connection is closed by now, which cancels the call.
        raise typer.Exit(INTERRUPTED) from None


def read_arguments(client: Client, tool: str, pool: str | None, arguments: list[str] | None) -> dict[str, Any]:
    """Return a command's arguments, typed by the tool's schema. Asks for the tool in any case: who isn't there is best told at once."""
    description = client.tool(tool, pool=pool)
    return words.read(arguments or [], lambda: description["parameters"], sys.stdin.read)


def print_json(value: Any) -> None:
    """Print a value as a line of JSON; bytes as the gateway says them."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=_marked))


def _marked(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} has no form in JSON")
