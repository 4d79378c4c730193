"""`gateway serve` and `gateway openapi`: the commands that are no clients, and the settings that a command line makes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import settings
from gateway.cli.options import Config
from gateway.cli.terminal import USAGE, err


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
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve on a public address without authentication.")] = False,
) -> None:
    """Serve tools over HTTP and gRPC; without an adapter, the demo tools."""
    read = partial(_read, config, adapters or [], host, port, grpc_address, pool_size, concurrency, log_level, debug, insecure)
    loaded = _or_exit(read)
    # Workers are started by exec, which needs none of the C core's fork handlers, nor its line about skipping them.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from gateway.serve import run_server

    raise typer.Exit(run_server(loaded, read, watch=reload))


def openapi(adapters: Annotated[list[str] | None, typer.Argument(metavar="[ADAPTER]…")] = None, config: Config = None) -> None:
    """Print the OpenAPI document for these adapters, without starting a server."""
    from gateway.runtime.loading import AdapterNotLoaded
    from gateway.serve import openapi_document

    try:
        document = openapi_document(_or_exit(partial(_read, config, adapters or [])))
    except (AdapterNotLoaded, settings.SettingsError) as exc:
        err.print(str(exc), style="red")
        raise typer.Exit(USAGE) from exc
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _or_exit(read: Callable[[], settings.Settings]) -> settings.Settings:
    try:
        return read()
    except settings.SettingsError as exc:
        err.print(str(exc), style="red")
        raise typer.Exit(USAGE) from exc


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
    insecure: bool = False,
) -> settings.Settings:
    """Return the settings, with what the command line says above all others.

    Raises:
        SettingsError: they can't be used.
    """
    given = {"host": host, "port": port, "grpc_address": grpc_address, "debug": debug, "insecure": insecure or None}
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
        from gateway.configured import pools_of

        overrides["pools"] = [{**pool.model_dump(exclude_unset=True), **sizes} for pool in pools_of(loaded)]
        loaded = settings.load(config, overrides)
    return loaded


def _pool_name(adapter: str) -> str:
    """Return a pool's name for an adapter: `my_tools:Adapter` is `Adapter`, `tools/speech.py` is `speech`."""
    return adapter.rpartition(":")[2].rpartition("/")[2].removesuffix(".py")
