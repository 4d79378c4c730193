"""The worker process from its command line to its exit code: `python -m gateway.runtime --adapter …`.

Order: load the adapter, bind, reach the host if there is one, serve, write the ready file, wait for a
signal, drain. Exit codes are Snakepit's: 0 after a signal or a lost host, 1 if it can't start, 2 for a wrong command line.
The drain: new executions are refused (UNAVAILABLE) and health says NOT_SERVING; running ones get
`--drain-timeout-s`; the rest are cancelled and their cleanup gets as long again. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc
from gateway.rpc import worker_pb2 as worker
from gateway.rpc import worker_pb2_grpc as worker_grpc
from gateway.runtime import compat, corenoise, lifeline, options
from gateway.runtime.executor import Executor
from gateway.runtime.failure import Draining
from gateway.runtime.host import HostLink, HostUnreachable, reach
from gateway.runtime.hosttools import RemoteHostTools
from gateway.runtime.limits import MESSAGE_LIMIT_BYTES, METADATA_LIMIT_BYTES
from gateway.runtime.loading import AdapterNotLoaded, LoadedAdapter, load
from gateway.runtime.origin import RunNamed
from gateway.runtime.servicer import BridgeServicer, Desk, WorkerServicer
from gateway.runtime.sessions import LocalSessions

logger = logging.getLogger(__name__)

_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_LIMIT_BYTES),
    # Two workers on one port would share its calls instead of failing at once.
    ("grpc.so_reuseport", 0),
)
_SERVICES = (bridge.DESCRIPTOR.services_by_name["BridgeService"].full_name, worker.DESCRIPTOR.services_by_name["WorkerService"].full_name)
# A tool that computes without a pause gives the event loop its turn this often (Python's default: 5 ms), so
# that the chunks it has yielded leave.
_SWITCH_INTERVAL_S = 0.001
_LAST_ANSWERS_S = 0.2


class CannotStart(Exception):
    """The text says why, for whoever started the worker."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the worker and return the process's exit code."""
    given = options.parse(argv)
    logging.basicConfig(level=given.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s%(run)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(RunNamed())
    corenoise.install()
    if given.own_process_group:
        with contextlib.suppress(PermissionError):  # it leads a group already
            os.setsid()
    stop = _StopSignal()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    compat.install()
    try:
        adapter = load(given.adapter)
        if given.only_check:
            return 0
        # What was imported stays: no collection has to look at it again.
        gc.freeze()
        asyncio.run(_serve(given, adapter, stop))
    except (AdapterNotLoaded, CannotStart, HostUnreachable) as error:
        return _refuse(str(error))
    except Exception:
        return _refuse(f"adapter {given.adapter!r} failed to load or to serve\n{traceback.format_exc()}")
    return 0


def _refuse(reason: str) -> int:
    sys.stderr.write(f"worker can't start: {reason}\n")
    return 1


async def _serve(given: options.Options, adapter: LoadedAdapter, stop: _StopSignal) -> None:
    """Serve until stopped.

    Raises:
        CannotStart: the address can't be bound, or the adapter does not allow the concurrency.
        HostUnreachable: there is to be a host, and it does not answer.
    """
    if given.concurrency > 1 and not adapter.allows_concurrency:
        raise CannotStart(
            f"--concurrency {given.concurrency} needs `__thread_safe__ = True` on {adapter.name}, "
            "or only async tools: its sync tools would run on several threads at once"
        )
    server = grpc.aio.server(options=_SERVER_OPTIONS)
    address = _bind(server, given.listen)
    if given.host_address is not None:
        await reach(given.host_address)
    async with asyncio.TaskGroup() as group:
        executor = Executor(group, concurrency=given.concurrency, stop_timeout_s=given.stop_timeout_s)
        if given.lifeline_fd is not None:
            _tie(given.lifeline_fd, executor, group)
        link = None
        tools = None if given.host_tools_address is None else RemoteHostTools(given.host_tools_address)
        if given.host_address is not None:
            link = HostLink(given.host_address, adapter, given.heartbeat, worker_id=given.worker_id, group=group, lost=stop.request)
        desk = Desk(given.worker_id, adapter, executor, link or LocalSessions(len(adapter.tools), tools))
        bridge_grpc.add_BridgeServiceServicer_to_server(BridgeServicer(desk), server)  # type: ignore[no-untyped-call]
        worker_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(desk), server)  # type: ignore[no-untyped-call]
        checks = await _add_health(server)
        await server.start()
        stop.attach(asyncio.get_running_loop())
        if given.ready_file is not None:
            _write_ready(Path(given.ready_file), address)
        logger.info("serving %s on %s", adapter.name, address)

        await stop.wait()
        await checks.enter_graceful_shutdown()
        await _drain(executor, given.drain_timeout_s)
        # What is left are health watchers and answers on their way out.
        await server.stop(_LAST_ANSWERS_S)
        if link is not None:
            await link.aclose()
        if tools is not None:
            tools.close()
        if len(executor):
            # The task group would wait for them for ever.
            logger.error("%d executions would not stop; ending without them", len(executor))
            logging.shutdown()
            os._exit(0)


def _bind(server: grpc.aio.Server, listen: str) -> str:
    """Bind and return the address with the real port.

    Raises:
        CannotStart: the address is in use, not ours, or not an address.
    """
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise CannotStart(f"can't listen on {listen}: {error}") from error
    if listen.startswith("unix:"):
        # Whoever may connect may run the tools.
        Path(listen.removeprefix("unix:").removeprefix("//")).chmod(0o600)
        return listen
    return f"{listen.rpartition(':')[0]}:{port}"


async def _add_health(server: grpc.aio.Server) -> health.aio.HealthServicer:
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for service in ("", *_SERVICES):
        await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return checks


async def _drain(executor: Executor, timeout_s: float) -> None:
    if await executor.drain(timeout_s):
        return
    executor.cancel_all(Draining("the worker is shutting down"))
    await executor.drain(timeout_s)


def _tie(lifeline_fd: int, executor: Executor, group: asyncio.TaskGroup) -> None:
    """Cancel everything when the gateway is gone, and tell the lifeline when it has stopped."""
    loop = asyncio.get_running_loop()
    stopped = threading.Event()

    async def abandon() -> None:
        executor.cancel_all(Draining("the gateway is gone"))
        await executor.drain(None)
        stopped.set()

    def begin() -> None:
        group.create_task(abandon(), name="abandon")

    def cancel_everything() -> None:
        loop.call_soon_threadsafe(begin)

    lifeline.watch(lifeline_fd, cancel_everything, stopped)


def _write_ready(path: Path, address: str) -> None:
    """Write the port, or a unix socket's address, so that a reader sees all of it or nothing."""
    draft = path.with_name(f"{path.name}.tmp")
    with draft.open("w", encoding="ascii") as file:
        file.write(address if address.startswith("unix:") else address.rpartition(":")[2])
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


class _StopSignal:
    """SIGTERM and SIGINT: exit at once while starting; a drain while serving; and the second one, at once again.

    Plain signal handlers, not the event loop's: they run although a tool blocks the loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = False
        self._event = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on the first signal asks for a drain."""
        self._loop = loop

    def request(self) -> None:
        """Ask for a drain without a signal; on the loop."""
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._loop is None:
            raise SystemExit(0)
        if self._asked:
            os._exit(0)
        self._asked = True
        self._loop.call_soon_threadsafe(self._event.set)
