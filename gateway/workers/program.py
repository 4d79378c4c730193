"""What a worker process runs: its command line and its environment, for each kind of worker that a pool starts.

Chosen by the worker's dialect, carried out by launcher.py. A program has to write where it listens into SNAKEPIT_READY_FILE.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from gateway.workers.options import PoolOptions

# The gateway sends SIGTERM only when a worker's streams have had their time.
_WORKER_DRAIN_S = 1.0


class Program:
    """One worker's program."""

    def __init__(self, options: PoolOptions, worker_id: str) -> None:
        self.options = options
        self.worker_id = worker_id

    def command(self, socket: Path, lifeline: int) -> list[str]:
        """Return the command line. `socket` is a path where it may listen; `lifeline` a descriptor that ends with the gateway.

        Raises:
            OSError: there is no such program.
        """
        raise NotImplementedError

    def environment(self, ready: Path) -> dict[str, str]:
        """Return the gateway's own environment, less its settings (secrets among them), plus the pool's. `ready` is the ready file."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
        env |= self.defaults()
        env |= self.options.env
        first = self.options.pythonpath or os.getcwd()
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [first, env.get("PYTHONPATH", "")]))
        env["PYTHONUNBUFFERED"] = "1"  # a print() shows up in the log when it happens
        env["SNAKEPIT_READY_FILE"] = str(ready)
        return env

    def defaults(self) -> dict[str, str]:
        """Return what the pool's `env` may override."""
        return {}


class OwnProgram(Program):
    """The gateway's own worker, gateway.runtime."""

    def command(self, socket: Path, lifeline: int) -> list[str]:
        options = self.options
        host_tools = [] if options.host_tools_address is None else ["--host-tools-address", options.host_tools_address]
        return [
            options.python,
            "-m",
            "gateway.runtime",
            "--adapter",
            options.adapter or "",
            "--listen",
            f"unix:{socket}",
            "--worker-id",
            self.worker_id,
            "--concurrency",
            str(options.concurrency),
            "--stop-timeout-s",
            str(options.stop_timeout_s),
            "--drain-timeout-s",
            str(_WORKER_DRAIN_S),
            "--lifeline-fd",
            str(lifeline),
            *host_tools,
        ]


class SnakepitProgram(Program):
    """Snakepit's worker: `command` with what Snakepit's own host adds to it.

    Source: Snakepit's worker configuration. It has no lifeline: when we are gone, a heartbeat that fails three times ends it, and on
    Linux the kernel does at once (leash.py), also where threads of it are stuck or it is the threaded one, which has no heartbeat.
    """

    def __init__(self, options: PoolOptions, worker_id: str, *, host_address: str, token: str) -> None:
        """`host_address`: where it finds its host. `token` names this process, as Snakepit's instance token does."""
        super().__init__(options, worker_id)
        self._host_address = host_address
        self._token = token

    def command(self, socket: Path, lifeline: int) -> list[str]:
        options = self.options
        program = shutil.which(options.command[0], path=options.env.get("PATH"))
        if program is None:
            raise FileNotFoundError(f"there is no program {options.command[0]!r}")
        command = [
            *_leash(),
            program,
            *options.command[1:],
            "--adapter",
            options.adapter or "",
            "--port",
            "0",
            "--elixir-address",
            self._host_address,
        ]
        command += ["--snakepit-run-id", self._token]
        if max_workers(options) is None:
            # The threaded server refuses what it doesn't know, and has not always known these.
            command += ["--snakepit-instance-name", self.worker_id, "--snakepit-instance-token", self._token]
        return command

    def defaults(self) -> dict[str, str]:
        return {
            "SNAKEPIT_PROCESS_GROUP": "1",
            # A span as JSON on stdout for every call, where the packages for that are installed.
            "SNAKEPIT_OTEL_CONSOLE": "false",
            "SNAKEPIT_HEARTBEAT_CONFIG": HEARTBEAT,
        }


def _leash() -> list[str]:
    """Return what goes ahead of a command so that its process ends with ours; nothing where the system can't do that."""
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py")), str(os.getpid())]


# Snakepit's defaults, said: a worker whose host is gone ends itself.
HEARTBEAT = '{"enabled":true,"interval_ms":2000,"timeout_ms":10000,"max_missed_heartbeats":3,"initial_delay_ms":0,"dependent":true}'
_MAX_WORKERS = "--max-workers"
_MAX_WORKERS_DEFAULT = 10


def max_workers(options: PoolOptions) -> int | None:
    """Return how many streams Snakepit's threaded server takes at once; None for the other one, or where its command doesn't say."""
    command = options.command
    for place, word in enumerate(command):
        name, equals, value = word.partition("=")
        if name == _MAX_WORKERS:
            if not equals:
                value = command[place + 1] if place + 1 < len(command) else ""
            return int(value) if value.isdigit() and int(value) > 0 else None
    return _MAX_WORKERS_DEFAULT if any(word.endswith("grpc_server_threaded.py") for word in command) else None
