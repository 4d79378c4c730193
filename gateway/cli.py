"""The command line: `gateway serve` runs the server, the other commands are its clients.

Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 no server, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gateway import __version__, liveruns, remote, settings

app = typer.Typer(name="gateway", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, help=__doc__)
out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

Url = Annotated[str, typer.Option(envvar="GATEWAY_URL", help="The gateway to talk to.")]
Arguments = Annotated[list[str] | None, typer.Argument(metavar="key=value…", help="Arguments, typed by the tool's schema.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file of settings.")]
DEFAULT_URL = "http://localhost:8000"


@app.command()
def serve(
    adapters: Annotated[list[str] | None, typer.Argument(metavar="[MODULE:ADAPTER|FILE.py[:ADAPTER]]…", help="What to serve.")] = None,
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: a free one.")] = None,
    grpc_address: Annotated[str | None, typer.Option(help="Address of the gRPC front door; empty: none.")] = None,
    pool_size: Annotated[int | None, typer.Option(help="Worker processes for each adapter.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Calls at once in one worker.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    debug: Annotated[bool | None, typer.Option("--debug/--no-debug", help="Tracebacks of tools in problem documents.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="For developers: take over an adapter's code when it changes.")] = False,
) -> None:
    """Serve tools over HTTP and gRPC; without an adapter, the demo tools."""
    read = partial(_read, config, adapters or [], host, port, grpc_address, pool_size, concurrency, log_level, debug)
    loaded = _or_exit(read)
    # Workers are started by exec, which needs none of the C core's fork handlers, nor its line about skipping them.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from gateway.serve import run_server

    raise typer.Exit(run_server(loaded, read, watch=reload))


@app.command()
def stream(
    tool: str,
    arguments: Arguments = None,
    url: Url = DEFAULT_URL,
    json_lines: Annotated[bool, typer.Option("--json", help="Every event as a JSON line, as the server sends them.")] = False,
    session: Annotated[str | None, typer.Option(help="Pin the call to the session's worker.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole run.")] = None,
) -> None:
    """Execute a tool and print its chunks as they come, a JSON value a line."""

    def show(event: dict[str, Any]) -> None:
        if json_lines:
            typer.echo(json.dumps(event, ensure_ascii=False))
        elif "data" in event:
            typer.echo(json.dumps(event["data"], ensure_ascii=False))

    end = _remote(remote.stream(url, tool, arguments or [], show, session=session, timeout_s=timeout))
    if end is None:
        err.print("the stream was cut: it had no end event", style="red")
        raise typer.Exit(1)
    if end["status"] != "ok":
        problem = end.get("error", {})
        err.print(f"{end['status']}: {problem.get('title', '')}: {problem.get('detail', '')}", style="red", markup=False)
        raise typer.Exit(1)
    if not json_lines:
        timing, metadata = end.get("timing", {}), end.get("metadata", {})
        err.print(f"ok: {end['chunks']} chunks in {timing.get('total_ms')} ms on {metadata.get('worker_id')}", style="dim", markup=False)


@app.command()
def call(tool: str, arguments: Arguments = None, url: Url = DEFAULT_URL) -> None:
    """Execute a unary tool and print its result as JSON."""
    answer = _remote(remote.call(url, tool, arguments or []))
    typer.echo(json.dumps(answer["result"], ensure_ascii=False))


@app.command()
def tools(url: Url = DEFAULT_URL, as_json: Annotated[bool, typer.Option("--json", help="The catalogue as JSON.")] = False) -> None:
    """List the tools of a gateway."""
    catalogue = _remote(remote.get(url, "/v1/tools"))
    if as_json:
        typer.echo(json.dumps(catalogue, ensure_ascii=False))
        return
    table = Table("tool", "streams", "pool", "arguments", "description", box=None)
    for entry in catalogue["tools"]:
        parameters = ", ".join((entry["parameters"] or {}).get("properties", {}))
        table.add_row(entry["name"], "yes" if entry["supports_streaming"] else "no", entry["pool"], parameters, entry["description"])
    out.print(table)


@app.command()
def runs(
    url: Url = DEFAULT_URL,
    state: Annotated[str | None, typer.Option(help="Only runs in this state: queued, running, ok, error …")] = None,
    tool: Annotated[str | None, typer.Option(help="Only runs of this tool.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="A run's state as JSON, a line each.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Everybody's open runs on this gateway, with their readers, until Ctrl-C.")] = False,
) -> None:
    """List the runs of a gateway, newest first."""
    if live:
        filters = {name: value for name, value in (("state", state), ("tool", tool)) if value is not None}
        _remote(liveruns.show(lambda: remote.live_runs(url, filters=filters, limit=limit), out, as_json=as_json))
        return
    listed = _remote(remote.runs(url, state=state, tool=tool, limit=limit))
    if as_json:
        for entry in listed:
            typer.echo(json.dumps(entry, ensure_ascii=False))
        return
    table = Table("run", "tool", "state", "chunks", "worker", "created", box=None)
    for entry in listed:
        table.add_row(entry["run"], entry["tool"], entry["state"], str(entry["chunks"]), entry["worker"] or "", entry["created_at"])
    out.print(table)


@app.command()
def cancel(run: str, url: Url = DEFAULT_URL) -> None:
    """Cancel a run."""
    state = _remote(remote.cancel(url, run))
    typer.echo(state["state"])


@app.command()
def doctor(
    url: Annotated[str, typer.Argument(envvar="GATEWAY_URL", help="The gateway, by the way that its clients take.")] = DEFAULT_URL,
    key: Annotated[str | None, typer.Option(envvar="GATEWAY_KEY", help="A key or token, where the gateway wants one.")] = None,
    idle: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for a cut of a silent stream.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON; so they are in a pipe.")] = False,
) -> None:
    """Measure the path to a gateway, proxies included, and say what to change; exits 1 where streams don't work on it."""
    from gateway import doctor as path

    in_words = out.is_terminal and not as_json
    try:
        with err.status(f"measuring the path to {url}, about {idle + 3:.0f} s") if in_words else contextlib.nullcontext():
            findings = asyncio.run(path.examine(url, key=key, idle_s=idle))
    except ValueError as exc:
        err.print(str(exc), style="red", markup=False)
        raise typer.Exit(2) from exc
    except path.NoGateway as exc:
        err.print(f"no gateway answers: {exc}", style="red", markup=False)
        raise typer.Exit(3) from exc
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if in_words:
        out.print(path.as_table(url, findings))
    else:
        typer.echo(path.as_json(url, findings))
    raise typer.Exit(int(any(finding.grade is path.Grade.PROBLEM for finding in findings)))


@app.command()
def openapi(adapters: Annotated[list[str] | None, typer.Argument(metavar="[ADAPTER]…")] = None, config: Config = None) -> None:
    """Print the OpenAPI document for these adapters, without starting a server."""
    from gateway.runtime.loading import AdapterNotLoaded
    from gateway.serve import openapi_document

    try:
        document = openapi_document(_or_exit(partial(_read, config, adapters or [])))
    except AdapterNotLoaded as exc:
        err.print(str(exc), style="red", markup=False)
        raise typer.Exit(2) from exc
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line."""
    app()


def _or_exit(read: Callable[[], settings.Settings]) -> settings.Settings:
    try:
        return read()
    except settings.SettingsError as exc:
        err.print(str(exc), style="red", markup=False)
        raise typer.Exit(2) from exc


def _read(
    config: Path | None,
    adapters: list[str],
    host: str | None = None,
    port: int | None = None,
    grpc_address: str | None = None,
    pool_size: int | None = None,
    concurrency: int | None = None,
    log_level: str | None = None,
    debug: bool | None = None,
) -> settings.Settings:
    """Return the settings, with what the command line says above all others.

    Raises:
        SettingsError: they can't be used.
    """
    given = {"host": host, "port": port, "grpc_address": grpc_address, "debug": debug}
    overrides: dict[str, Any] = {}
    server = {name: value for name, value in given.items() if value is not None}
    if server:
        overrides["server"] = server
    if log_level is not None:
        overrides["log"] = {"level": log_level}
    sizes = {name: value for name, value in (("size", pool_size), ("concurrency", concurrency)) if value is not None}
    if adapters:
        names = ["default"] if len(adapters) == 1 else [_pool_name(adapter) for adapter in adapters]
        overrides["pools"] = [{"name": name, "adapter": adapter, **sizes} for name, adapter in zip(names, adapters, strict=True)]
    loaded = settings.load(config, overrides)
    if sizes and not adapters:
        pools = loaded.pools or (settings.PoolSettings(adapter="demo"),)
        overrides["pools"] = [{**pool.model_dump(exclude_unset=True), **sizes} for pool in pools]
        loaded = settings.load(config, overrides)
    return loaded


def _pool_name(adapter: str) -> str:
    """Return a pool's name for an adapter: `my_tools:Adapter` is `Adapter`, `tools/speech.py` is `speech`."""
    return adapter.rpartition(":")[2].rpartition("/")[2].removesuffix(".py")


def _remote(call: Any) -> Any:
    """Return what a client command's coroutine returns; its failures become exit codes."""
    try:
        return asyncio.run(call)
    except remote.NoServer as exc:
        err.print(f"no gateway answers: {exc}", style="red", markup=False)
        raise typer.Exit(3) from exc
    except remote.WrongUsage as exc:
        err.print(str(exc), style="red", markup=False)
        raise typer.Exit(2) from exc
    except remote.Refused as exc:
        err.print(str(exc), style="red", markup=False)
        raise typer.Exit(1) from exc
    except KeyboardInterrupt:
        # Leaving is a disconnect, which cancels the run.
        raise typer.Exit(130) from None


if sys.platform == "win32":
    raise SystemExit("the gateway runs on Unix: it needs process groups and Unix sockets")
