"""The rows of the table: which figure of which case, its unit, and the goal.

A ratio is how many times better the gateway is: above 1 in its favour, whether less is better or more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One row. `goal` None: shown, not aimed at. `is_ratio_shown` False where zero is a usual value."""

    case: str
    figure: str
    title: str
    goal: float | None = None
    more_is_better: bool = False
    is_ratio_shown: bool = True

    def ratio(self, ours: float, theirs: float) -> float | None:
        """Return how many times better `ours` is; None where that has no meaning."""
        if not self.is_ratio_shown or ours <= 0 or theirs <= 0:
            return None
        return ours / theirs if self.more_is_better else theirs / ours

    def is_met(self, value: float) -> bool:
        """Return whether the goal is reached; True without one."""
        if self.goal is None:
            return True
        return value >= self.goal if self.more_is_better else value <= self.goal


METRICS = (
    Metric("one", "cpu_us", "one: CPU µs an event", 3.5),
    Metric("one", "events_per_s", "one: events/s", more_is_better=True),
    Metric("many", "cpu_us", "many: CPU µs an event", 4),
    Metric("many", "events_per_s", "many: events/s", more_is_better=True),
    Metric("big", "cpu_us", "big: CPU µs an event of 64 KiB", 110),
    Metric("paced", "cpu_us", "paced: CPU µs an event", 36),
    Metric("paced", "p50_ms", "paced: added latency p50, ms", 0.4),
    Metric("paced", "p99_ms", "paced: added latency p99, ms", 2),
    Metric("short", "cpu_us", "short: CPU µs a request", 138),
    Metric("short", "requests_per_s", "short: requests/s", more_is_better=True),
    Metric("idle", "kib_per_stream", "idle: KiB a stream", 30),
    Metric("idle", "cpu_percent", "idle: CPU, % of a core", is_ratio_shown=False),
    Metric("cancel", "busy_p50_ms", "cancel, busy: p50, ms", 0.5),
    Metric("cancel", "busy_p99_ms", "cancel, busy: p99, ms"),
    Metric("cancel", "flooded_p50_ms", "cancel, flooded: p50, ms"),
    Metric("cancel", "silent_p50_ms", "cancel, silent: p50, ms", 0.3),
    Metric("cancel", "silent_p99_ms", "cancel, silent: p99, ms"),
    Metric("stall", "mb_per_reader", "stall: MB held a reader", 0.5),
    Metric("stall", "growth_mb_per_s", "stall: memory grows by MB/s", 0.1, is_ratio_shown=False),
    Metric("stall", "sending_mb_per_s", "stall: upstream still sends MB/s", 0.1, is_ratio_shown=False),
    Metric("ws-one", "cpu_us", "ws one: CPU µs a message", 12),
    Metric("ws-one", "events_per_s", "ws one: messages/s", more_is_better=True),
    Metric("ws-paced", "cpu_us", "ws paced: CPU µs a message", 47),
    Metric("ws-paced", "p50_ms", "ws paced: added latency p50, ms"),
    Metric("ws-paced", "p99_ms", "ws paced: added latency p99, ms"),
    Metric("shared-one", "cpu_us", "log in Valkey, one: CPU µs an event"),
    Metric("shared-paced", "cpu_us", "log in Valkey, paced: CPU µs an event"),
    Metric("shared-paced", "p50_ms", "log in Valkey, paced: added latency p50, ms"),
    Metric("shared-short", "cpu_us", "log in Valkey, short: CPU µs a request"),
    Metric("rpc-one", "cpu_us", "rpc, one: CPU µs an event"),
    Metric("rpc-one", "events_per_s", "rpc, one: events/s", more_is_better=True),
    Metric("rpc-paced", "cpu_us", "rpc, paced: CPU µs an event"),
    Metric("rpc-paced", "p50_ms", "rpc, paced: added latency p50, ms"),
    Metric("rpc-paced", "p99_ms", "rpc, paced: added latency p99, ms"),
    Metric("tool", "events_per_s", "tool: chunks/s", 300_000, more_is_better=True),
    Metric("tool", "cpu_us", "tool: CPU µs a chunk, gateway"),
    Metric("tool", "worker_cpu_us", "tool: CPU µs a chunk, worker"),
)


def spell(value: float) -> str:
    """Return a figure with as many digits as it deserves."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
