"""`gateway doctor`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import typer
from rich.text import Text

from gateway.cli.options import DEFAULT_URL, Key
from gateway.cli.terminal import FAILED, INTERRUPTED, NO_SERVER, USAGE, err, out, show


def doctor(
    url: Annotated[str, typer.Argument(envvar="GATEWAY_URL", help="The gateway, by the way that its clients take.")] = DEFAULT_URL,
    key: Key = None,
    idle: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for a cut of a silent stream.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON; so they are in a pipe.")] = False,
) -> None:
    """Measure the path to a gateway, proxies included, and say what to change; exits 1 where streams don't work on it."""
    from gateway import doctor as path

    in_words = out.is_terminal and not as_json
    try:
        with err.status(Text(f"measuring the path to {url}, about {idle + 3:.0f} s")) if in_words else contextlib.nullcontext():
            findings = asyncio.run(path.examine(url, key=key, idle_s=idle))
    except ValueError as exc:
        show("usage", str(exc))
        raise typer.Exit(USAGE) from exc
    except path.NoGateway as exc:
        show("no gateway answers", str(exc))
        raise typer.Exit(NO_SERVER) from exc
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if in_words:
        out.print(path.as_table(url, findings))
    else:
        typer.echo(path.as_json(url, findings))
    if any(finding.grade is path.Grade.PROBLEM for finding in findings):
        raise typer.Exit(FAILED)
