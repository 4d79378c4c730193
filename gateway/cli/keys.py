"""`gateway keys`: API keys for those who may use the gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.auth import keys as api_keys
from gateway.cli.terminal import USAGE, note, show

keys = typer.Typer(no_args_is_help=True, help="API keys.")


@keys.callback()
def group() -> None:
    """API keys."""


@keys.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: the name that logs and limits show.")],
    scope: Annotated[list[str], typer.Option(help="What it may do, as often as needed: tools:NAME, tools:*, pools:NAME, metrics, admin.")],
) -> None:
    """Make an API key: print it, once, and the line to store, which can't be turned back into it."""
    secret = api_keys.new_secret()
    try:
        line = api_keys.line_of(name, secret, scope)
    except ValueError as exc:
        show("usage", str(exc))
        raise typer.Exit(USAGE) from exc
    typer.echo(f"key:   {secret}")
    typer.echo(f"store: {line}")
    note("The key is shown this once; give it to its user. Store the line in [auth] keys_file, or in GATEWAY_AUTH__KEYS.")
