"""`gateway runs` and `gateway cancel`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from gateway.cli import liveruns
from gateway.cli.catalogue import print_json
from gateway.cli.options import DEFAULT_URL, Key, Url
from gateway.cli.terminal import INTERRUPTED, connected, out, show_table

# The longest page that the gateway makes.
PAGE_LIMIT = 100


def runs(
    url: Url = DEFAULT_URL,
    key: Key = None,
    state: Annotated[str | None, typer.Option(help="Only runs in this state: queued, running, ok, error …")] = None,
    tool: Annotated[str | None, typer.Option(help="Only runs of this tool.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="A run's state as JSON, a line each.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Everybody's open runs on this gateway, with their readers, until Ctrl-C.")] = False,
) -> None:
    """List the runs of a gateway, newest first."""
    with connected(url, key) as client:
        if live:
            look = partial(client.live_runs, state=state, tool=tool, limit=min(limit, PAGE_LIMIT))
            try:
                liveruns.show(look, out, as_json=as_json)
            except KeyboardInterrupt:
                raise typer.Exit(INTERRUPTED) from None
            return
        listed = [run.document for run in client.runs(state=state, tool=tool, limit=limit)]
    if as_json:
        for entry in listed:
            print_json(entry)
        return
    table = Table("run", "tool", "state", "chunks", "worker", "created", box=None)
    for entry in listed:
        table.add_row(entry["run"], entry["tool"], entry["state"], str(entry["chunks"]), entry["worker"] or "", entry["created_at"])
    show_table(table)


def cancel(run: str, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Cancel a run."""
    with connected(url, key) as client:
        typer.echo(client.cancel(run).state)
