"""Where the commands write, and how a failure is shown and becomes an exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.client import Client, ClientError, GatewayProblem, NotReachable, StreamLost

FAILED, USAGE, NO_SERVER, INTERRUPTED = 1, 2, 3, 130

# What tools, callers and gateways say is shown as it is: brackets and colons in it mean nothing to rich.
out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


# Wider than any table of ours.
PIPE_WIDTH = 1000


class WrongUsage(Exception):
    """What stands on the command line can't be meant so; the text says why."""


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turn what goes wrong in a client command into words on stderr and an exit code."""
    try:
        yield
    except NotReachable as exc:
        show("no gateway answers", str(exc))
        raise typer.Exit(NO_SERVER) from exc
    except GatewayProblem as exc:
        show(
            f"{exc.status} {exc.title}" if exc.status else exc.title, exc.detail, [f"{error.field}: {error.detail}" for error in exc.errors]
        )
        raise typer.Exit(FAILED) from exc
    except ClientError as exc:
        place = exc.last_event_id if isinstance(exc, StreamLost) else None
        show("lost", str(exc), [] if place is None else [f"go on with: gateway attach {place}"])
        raise typer.Exit(FAILED) from exc
    except WrongUsage as exc:
        show("usage", str(exc))
        raise typer.Exit(USAGE) from exc


@contextlib.contextmanager
def connected(url: str, key: str | None) -> Iterator[Client]:
    """Lend a client, whose failures become an exit code."""
    with failures():
        try:
            client = Client(url, key=key)
        except ValueError as exc:
            raise WrongUsage(str(exc)) from exc
        with client:
            yield client


def show(title: str, detail: str, lines: list[str] | None = None) -> None:
    """Write a failure: a panel for people, plain lines for a file."""
    parts = [detail, *(f"  {line}" for line in lines or ())]
    if err.is_terminal:
        err.print(Panel(Group(*(Text(part) for part in parts if part)), title=Text(title), title_align="left", border_style="red"))
    else:
        err.print(f"{title}: " + "\n".join(parts))


def show_table(table: Table, console: Console = out) -> None:
    """Write a table; one that isn't for a terminal has a line for each row, and nothing in it is cut."""
    if not console.is_terminal:
        console = Console(file=console.file, width=PIPE_WIDTH, highlight=False, markup=False, emoji=False)
    console.print(table)


def note(text: str) -> None:
    """Write what is worth knowing, and no output."""
    err.print(text, style="dim")
