"""All commands together."""

from __future__ import annotations

import sys

import typer

from gateway import __version__
from gateway.cli import catalogue, doctor, keys, runs, scaffold, serve, streams

HELP = "Snakepit Gateway: `gateway serve` runs the server, the other commands are its clients."

app = typer.Typer(name="gateway", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=HELP)
for command in (
    serve.serve,
    streams.stream,
    catalogue.call,
    catalogue.tools,
    runs.runs,
    streams.attach,
    runs.cancel,
    doctor.doctor,
    scaffold.new,
    serve.openapi,
):
    app.command()(command)
app.add_typer(keys.keys, name="keys")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line."""
    app()


if sys.platform == "win32":
    raise SystemExit("the gateway runs on Unix: it needs process groups and Unix sockets")
