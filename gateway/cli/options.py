"""The options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli import completion
from gateway.client.connection import DEFAULT_URL

Url = Annotated[str, typer.Option(envvar="GATEWAY_URL", help="The gateway to talk to.")]
Key = Annotated[
    str | None,
    typer.Option(envvar="GATEWAY_KEY", help="An API key or a JWT; better in the environment, where no process list shows it."),
]
Tool = Annotated[str, typer.Argument(autocompletion=completion.tools, help="The tool's name.")]
Arguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="key=value…",
        autocompletion=completion.arguments,
        help="Arguments, typed by the tool's schema; key=@file: a file's text (key=@- stdin's); @args.json or -: a JSON object of them.",
    ),
]
Pool = Annotated[str | None, typer.Option(help="The pool to run in, where several offer the tool.")]
Session = Annotated[str | None, typer.Option(help="Pin the call to the session's worker.")]
Timeout = Annotated[float | None, typer.Option(min=0.001, help="Seconds for the whole run.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file of settings.")]

__all__ = ["DEFAULT_URL", "Arguments", "Config", "Key", "Pool", "Session", "Timeout", "Tool", "Url"]
