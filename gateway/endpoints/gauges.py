"""What a gateway holds at the moment of a scrape: its runs and their readers, its sockets and sessions, the log's memory, the pools.

A collector of telemetry/metrics.py. Nothing is counted ahead of time: a scrape looks at those who know, in one step of the
event loop, so the numbers fit together. It goes once through the known runs and the pools' workers: a few milliseconds with
10,000 of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.endpoints.sockets import Sockets
from gateway.runs.hub import Hub
from gateway.runs.policy import Role
from gateway.sessions import Sessions
from gateway.telemetry.metrics import add_histogram, counter
from gateway.workers.pool import Pool
from gateway.workers.worker import WorkerState

OPEN_STATES = ("queued", "running")
FORMATS = ("sse", "ndjson", "json", "websocket", "grpc")


class LogState(Protocol):
    """A shared log, as an operator sees it."""

    @property
    def available(self) -> bool: ...

    @property
    def queued_bytes(self) -> int: ...


class Gauges(Collector):
    """The gauges of one gateway. `shared_log` None: its log is in this process."""

    def __init__(self, hub: Hub, sockets: Sockets, sessions: Sessions, shared_log: LogState | None = None) -> None:
        self._hub = hub
        self._sockets = sockets
        self._sessions = sessions
        self._shared_log = shared_log

    def collect(self) -> Iterator[Metric]:
        # All at once: see Metrics.
        yield from [*self._runs(), *self._kept(), *self._log(), *self._memory(), *self._pools()]

    def _runs(self) -> Iterator[Metric]:
        hub = self._hub
        states = Counter(dict.fromkeys(OPEN_STATES, 0))
        readers = Counter({(written, role.value): 0 for written in FORMATS for role in Role})
        for run in hub.known_runs:
            if run.ended is None:
                states[run.state] += 1
            for reader in run.readers:
                readers[reader.format, reader.options.role.value] += 1
        for followed in () if hub.others is None else hub.others.followed:
            for reader in followed.readers:
                readers[reader.format, reader.options.role.value] += 1
        yield gauges("gateway_runs_open", "Runs that are open.", ["state"], {(state,): count for state, count in states.items()})
        yield gauges("gateway_readers", "Who reads a run now.", ["format", "role"], readers)

    def _kept(self) -> Iterator[Metric]:
        yield gauge("gateway_websockets_open", "WebSockets that are open.", len(self._sockets))
        yield gauge("gateway_sessions", "Sessions that are kept.", len(self._sessions))
        # Streams have none: what grows here without sockets or calls growing is a leak.
        yield gauge("gateway_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))

    def _log(self) -> Iterator[Metric]:
        budget = self._hub.budget
        yield gauge("gateway_log_bytes", "What the runs' logs hold in memory.", budget.size_bytes)
        yield gauge("gateway_log_limit_bytes", "What they may hold.", budget.limit_bytes)
        text = "What was evicted because all logs together held too much."
        yield counter("gateway_log_reclaimed_bytes", text, [], {(): budget.reclaimed_bytes})
        if self._shared_log is not None:
            yield gauge("gateway_shared_log_available", "Whether the shared log can be used: 1 or 0.", int(self._shared_log.available))
            yield gauge("gateway_shared_log_queued_bytes", "What waits to be written to it.", self._shared_log.queued_bytes)

    def _memory(self) -> Iterator[Metric]:
        memory = self._hub.memory
        held = {(name,): value for name, value in memory.held().items()}
        yield gauges("gateway_memory_bytes", "What is held for runs and their readers.", ["part"], held)
        yield gauge("gateway_memory_limit_bytes", "What may be held for them; 0 without a limit.", memory.limit_bytes or 0)
        shed = {("runs",): memory.refused, ("readers",): memory.cut}
        yield counter("gateway_memory_shed", "Runs that were refused and readers that were cut for want of memory.", ["what"], shed)

    def _pools(self) -> Iterator[Metric]:
        pools = self._hub.pools
        now = {name: pool.snapshot() for name, pool in pools.items()}
        workers = {(name, state.value): 0 for name in now for state in WorkerState}
        for name, pool in now.items():
            for worker in pool["workers"]:
                workers[name, worker["state"]] += 1
        yield gauges("gateway_pool_workers", "Workers.", ["pool", "state"], workers)
        yield gauges("gateway_pool_places", "Calls that the ready workers can execute at once.", ["pool"], _each(now, _places))
        yield gauges("gateway_pool_in_flight", "Calls that workers execute.", ["pool"], _each(now, _in_flight))
        yield gauges("gateway_pool_queued", "Runs that wait for a worker.", ["pool"], _each(now, _queued))
        yield counter("gateway_pool_worker_restarts", "Workers that were started in place of another.", ["pool"], _each(now, _restarts))
        yield counter("gateway_pool_stuck", "Cancelled tools that did not stop in time.", ["pool"], _each(now, _stuck))
        yield _stops(pools)


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], values: Mapping[Any, int]) -> Metric:
    """Return a gauge with a value for each tuple of labels."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _stops(pools: Mapping[str, Pool]) -> Metric:
    family = HistogramMetricFamily("gateway_tool_stop_seconds", "From a cancelled call's end to its tool's.", labels=["pool", "cause"])
    for name, pool in pools.items():
        for cause, histogram in pool.stops.items():
            add_histogram(family, [name, cause], histogram)
    return family


def _each(pools: Mapping[str, dict[str, Any]], number: Any) -> dict[tuple[str], int]:
    return {(name,): number(pool) for name, pool in pools.items()}


def _places(pool: dict[str, Any]) -> int:
    return sum(worker["concurrency"] for worker in pool["workers"] if worker["state"] == WorkerState.READY)


def _in_flight(pool: dict[str, Any]) -> int:
    return int(pool["in_flight"])


def _queued(pool: dict[str, Any]) -> int:
    return int(pool["queued"])


def _stuck(pool: dict[str, Any]) -> int:
    return int(pool["stuck"])


def _restarts(pool: dict[str, Any]) -> int:
    # A worker and its successor have the same id, and the successor's count is the slot's.
    slots: dict[str, int] = {}
    for worker in pool["workers"]:
        slots[worker["id"]] = max(slots.get(worker["id"], 0), worker["restarts"])
    return sum(slots.values())
