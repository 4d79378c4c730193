"""`gateway serve` in this process: bind, log, run the app under uvicorn until a signal has drained it.

Also the documents of the API without a server: the adapters are described in this process, as a worker would.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import structlog

from gateway import server
from gateway.app import Gateway, create_app
from gateway.endpoints import asyncapi, itemschemas, openapi
from gateway.reload import Reload
from gateway.runtime import compat, loading
from gateway.settings import Settings, SettingsError, check_exposure, is_public
from gateway.telemetry import logs
from gateway.workers.description import Tool

_log = structlog.get_logger("gateway")


def run_server(settings: Settings, load: Callable[[], Settings], *, watch: bool = False) -> int:
    """Serve until a signal; return the exit code: 0, 1 when an address can't be bound or a part fails, 2 when the settings can't be used.

    `load` reads the settings again, for SIGHUP. `watch`: changed code of adapters is taken over at once. The exit code is
    128 and the signal's number where a second signal has cut the drain short.
    """
    logs.configure(settings.log.level, settings.log.format)
    try:
        check_exposure(settings)
    except SettingsError as exc:
        _log.error("not started: it would be open to everybody", reason=str(exc))
        return 2
    try:
        sock = server.bind(settings.server.host, settings.server.port)
    except OSError as exc:
        _log.error("can't listen", host=settings.server.host, port=settings.server.port, reason=str(exc))
        return 1
    try:
        gateway = Gateway(settings)
        app = create_app(gateway=gateway)
    except SettingsError as exc:
        _log.error("settings can't be used", reason=str(exc))
        return 2
    reload = Reload(gateway, load)
    gateway.attendants.append(reload.run)
    if watch:
        # Nobody else needs the package behind it.
        from gateway.sourcewatch import SourceWatch

        gateway.attendants.append(SourceWatch(gateway).run)
    host, port = sock.getsockname()[:2]
    if is_public(host) and gateway.access is None:
        _log.warning("listening on a public address without authentication, as --insecure wants it", host=host)
    tls = None if gateway.certificates is None else gateway.certificates.context
    http = server.build(app, drain=gateway.drain_runs, limits=gateway.connection_limits, tls=tls, reload=reload.ask)
    gateway.hub.memory.sources["connections"] = http.held_bytes
    name = "localhost" if host == "127.0.0.1" else f"[{host}]" if ":" in host else host
    _log.info("HTTP listens", url=f"{'http' if tls is None else 'https'}://{name}:{port}")
    # What is loaded by now stays: the collector need not look at it again. A request makes some hundred objects and
    # few cycles, so a look every 700 objects, the default, finds next to nothing; and what is kept of a run, for minutes,
    # would be looked at again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    with asyncio.Runner(loop_factory=server.new_event_loop) as runner:
        try:
            runner.run(http.serve([sock]))
        except SystemExit:
            # uvicorn's way to say that the app did not start; it has logged why.
            return 1
    if http.failed:
        return 1
    # As a shell says it of a program that a signal has ended: not all was told that there was to tell.
    return 0 if http.forced_by is None else 128 + http.forced_by


def openapi_document(settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI document for the adapters of the settings' local pools.

    Raises:
        AdapterNotLoaded: an adapter can't be found.
    """
    return contracts(settings)["openapi.json"]


def contracts(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return all documents that describe the API to programs, by the names they are served under, for the settings' local adapters.

    Raises:
        AdapterNotLoaded: an adapter can't be found.
    """
    compat.install()
    gateway = Gateway(settings)
    tools: dict[str, Tool] = {}
    for pool in gateway.pool_options:
        if pool.adapter is None:
            continue
        for spec in loading.load(pool.adapter).tools.values():
            described = Tool(spec.name, pool.name, spec.description, spec.supports_streaming, spec.parameters.schema)
            tools.setdefault(spec.name, described)
    offered = list(tools.values())
    document = openapi.build(create_app(gateway=gateway), offered)
    return {"openapi.json": document, "openapi-3.2.json": itemschemas.upgraded(document), "asyncapi.json": asyncapi.build(offered)}
