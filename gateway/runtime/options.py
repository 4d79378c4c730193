"""The worker's command line and environment: Snakepit's own, so that its hosts can start this worker, and ours."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.runtime.heartbeat import HeartbeatSettings

_TRUE = ("1", "true", "yes", "on")
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "none": logging.CRITICAL + 1,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the worker was told. `listen` is `host:port` or `unix:/path`; `host_address` None: no Snakepit host.

    `host_tools_address` is where the gateway's own tools are; None: there are none, or the host has them.
    """

    adapter: str
    listen: str
    worker_id: str
    concurrency: int
    stop_timeout_s: float
    drain_timeout_s: float
    lifeline_fd: int | None
    host_address: str | None
    host_tools_address: str | None
    heartbeat: HeartbeatSettings
    ready_file: str | None
    own_process_group: bool
    log_level: int
    only_check: bool


def parse(argv: Sequence[str] | None, environ: Mapping[str, str] = os.environ) -> Options:
    """Return the options. A wrong command line prints its usage and exits 2, as argparse does."""
    parser = _parser()
    given = parser.parse_args(argv)
    heartbeat = _heartbeat(given)
    if text := environ.get("SNAKEPIT_HEARTBEAT_CONFIG"):
        try:
            heartbeat = heartbeat.overridden(text)
        except (ValueError, TypeError) as error:
            parser.error(f"SNAKEPIT_HEARTBEAT_CONFIG: {error}")
    return Options(
        adapter=given.adapter,
        listen=given.listen or f"127.0.0.1:{given.port}",
        worker_id=given.worker_id or f"python-{os.getpid()}",
        concurrency=given.concurrency,
        stop_timeout_s=given.stop_timeout_s,
        drain_timeout_s=given.drain_timeout_s,
        lifeline_fd=given.lifeline_fd,
        host_address=given.elixir_address or environ.get("SNAKEPIT_GRPC_ADDRESS") or environ.get("SNAKEPIT_ELIXIR_ADDRESS") or None,
        host_tools_address=given.host_tools_address,
        heartbeat=heartbeat,
        ready_file=environ.get("SNAKEPIT_READY_FILE") or None,
        own_process_group=environ.get("SNAKEPIT_PROCESS_GROUP", "").lower() in _TRUE,
        log_level=_LEVELS.get(environ.get("SNAKEPIT_LOG_LEVEL", "warning").lower(), logging.WARNING),
        only_check=given.health_check,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway.runtime", description="Serve an adapter's tools over gRPC.", allow_abbrev=False
    )
    parser.add_argument("--adapter", required=True, help="module:Class, module.Class or path/to/file.py[:Class]")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 (the default) lets the system choose")
    parser.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:/path, instead of --port")
    parser.add_argument("--worker-id", default="", help="the name in Describe and in a host's registry")
    parser.add_argument("--concurrency", type=_at_least_one, default=1, help="executions at once (1)")
    parser.add_argument("--stop-timeout-s", type=float, default=10.0, metavar="S", help="a cancelled tool running longer is reported (10)")
    parser.add_argument("--drain-timeout-s", type=float, default=2.0, metavar="S", help="what running streams get after SIGTERM (2)")
    parser.add_argument("--lifeline-fd", type=int, metavar="FD", help="read end of a pipe; its end means that the gateway is gone")
    parser.add_argument("--host-tools-address", metavar="ADDRESS", help="where the gateway answers `call_elixir_tool`")
    parser.add_argument("--health-check", action="store_true", help="import the adapter and exit: 0 if that works, else 1")

    snakepit = parser.add_argument_group("Snakepit hosts")
    snakepit.add_argument("--elixir-address", metavar="ADDRESS", help="the host; else SNAKEPIT_GRPC_ADDRESS, SNAKEPIT_ELIXIR_ADDRESS")
    for name in ("--snakepit-run-id", "--snakepit-instance-name", "--snakepit-instance-token"):
        snakepit.add_argument(name, default="", help="for the host, which looks for it in command lines")
    snakepit.add_argument("--heartbeat-enabled", action="store_true")
    for name in ("--heartbeat-interval-ms", "--heartbeat-timeout-ms", "--heartbeat-max-missed", "--heartbeat-initial-delay-ms"):
        snakepit.add_argument(name, type=int, metavar="N")
    dependence = snakepit.add_mutually_exclusive_group()
    dependence.add_argument("--heartbeat-dependent", dest="dependent", action="store_true", default=True)
    dependence.add_argument("--heartbeat-independent", dest="dependent", action="store_false")
    return parser


def _heartbeat(given: argparse.Namespace) -> HeartbeatSettings:
    default = HeartbeatSettings()
    return HeartbeatSettings(
        interval_ms=_or(given.heartbeat_interval_ms, default.interval_ms),
        timeout_ms=_or(given.heartbeat_timeout_ms, default.timeout_ms),
        max_missed_heartbeats=_or(given.heartbeat_max_missed, default.max_missed_heartbeats),
        initial_delay_ms=_or(given.heartbeat_initial_delay_ms, default.initial_delay_ms),
        dependent=given.dependent,
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
