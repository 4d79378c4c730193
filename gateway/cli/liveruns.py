"""`gateway runs --live`: the open runs of a gateway as a table that follows them; in a pipe, or as JSON, one look at them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway.cli.terminal import show_table

INTERVAL_S = 1.0


def show(ask: Callable[[], Any], console: Console, *, as_json: bool) -> None:
    """Print what `ask` returns, again and again on a terminal; on any other output once."""
    document = ask()
    if as_json:
        for run in document["runs"]:
            console.out(json.dumps(run, ensure_ascii=False), highlight=False)
        return
    if not console.is_terminal:
        show_table(table(document), console)
        return
    with Live(table(document), console=console, auto_refresh=False) as screen:
        while True:
            time.sleep(INTERVAL_S)
            screen.update(table(ask()), refresh=True)


def table(document: Any) -> Table:
    """Return a page of open runs as a table."""
    runs = document["runs"]
    shown = Table(
        "run", "tool", "state", "caller", "worker", "age", "chunks", "bytes", "silent", "readers", "lag", box=None, title_justify="left"
    )
    shown.title = f"{document['total']} open" + (f", the newest {len(runs)}" if len(runs) < document["total"] else "")
    for run in runs:
        place = run.get("queue")
        state = f"queued {place['position']}/{place['depth']}" if place else "paused" if run["paused"] else run["state"]
        formats = sorted(f"{reader['format']}{'' if reader['role'] == 'subscriber' else ' (observes)'}" for reader in run["readers"])
        more = run["reader_count"] - len(run["readers"])
        lag = max((reader["lag_bytes"] for reader in run["readers"]), default=0)
        shown.add_row(
            run["run"],
            run["tool"],
            state,
            run["caller"],
            run["worker"] or run["pool"],
            _seconds(run["age_ms"]),
            str(run["chunks"]),
            str(run["bytes"]),
            _seconds(run["silent_ms"]),
            ", ".join([*formats, *([f"{more} more"] if more else ())]) or "nobody",
            str(lag) if lag else "",
        )
    return shown


def _seconds(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"{milliseconds / 1000:.1f} s"
