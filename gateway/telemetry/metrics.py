"""The tallies as Prometheus metrics, and the text of a scrape.

`Metrics` is one registry of one gateway: nothing is global, so any number of gateways can live in a process. Collectors add
what other objects know at the moment of a scrape (endpoints/gauges.py). A scrape is one synchronous step on the event loop:
its numbers are of one moment and fit together. Names and labels: docs/metrics.md. Standard: the Prometheus text format 0.0.4,
OpenMetrics 1.0 for who asks for that.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.tally import Histogram, ResponseTally, RunTally, ToolTally


class Metrics:
    """What one gateway shows to Prometheus."""

    def __init__(self, *, version: str, transport: str, collectors: Iterable[Collector]) -> None:
        """`collectors` are asked at each scrape, in order."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(BuildInfo(version, transport))
        for collector in collectors:
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def scrape(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return all metrics as text, and its media type: the one that an Accept header asks for, else the plain one."""
        try:
            encode, media_type = choose_encoder(accept or "")
        except TypeError:
            # The library compares a version that is no number with numbers.
            encode, media_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
        return encode(self._registry), media_type

    def families(self) -> Iterator[Metric]:
        """Return the metrics as they are now."""
        return iter(self._registry.collect())


class BuildInfo(Collector):
    """What runs: always 1, its labels are the news."""

    def __init__(self, version: str, transport: str) -> None:
        self._labels = [version, platform.python_version(), transport]

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("gateway_build_info", "What runs here.", labels=["version", "python", "transport"])
        family.add_metric(self._labels, 1)
        yield family


class RunTotals(Collector):
    """What a RunTally has counted."""

    def __init__(self, tally: RunTally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        tools = tally.tools
        yield _by_tool("gateway_runs_started", "Runs that were accepted, queued ones included.", [(tool, tool.started) for tool in tools])
        ended = CounterMetricFamily("gateway_runs_ended", "Runs that have ended.", labels=["tool", "pool", "outcome"])
        for tool in tools:
            for outcome, count in tool.ended.items():
                ended.add_metric([tool.tool, tool.pool, outcome], count)
        yield ended
        yield counter("gateway_runs_refused", "Runs that were asked for and never began.", ["tool", "problem"], tally.refused)
        yield _by_tool("gateway_run_chunks", "Chunks that tools have yielded.", [(tool, tool.chunks) for tool in tools])
        yield _by_tool("gateway_run_chunk_bytes", "Bytes of those chunks, as JSON.", [(tool, tool.chunk_bytes) for tool in tools])
        yield _histograms("gateway_run_queue_seconds", "From a run's acceptance to its worker.", [(tool, tool.queue) for tool in tools])
        yield _histograms(
            "gateway_run_first_chunk_seconds", "From a run's acceptance to its first chunk.", [(tool, tool.first_chunk) for tool in tools]
        )
        yield _histograms("gateway_run_duration_seconds", "From a run's acceptance to its end.", [(tool, tool.duration) for tool in tools])
        yield _histograms("gateway_run_chunk_gap_seconds", "From one batch of a run's chunks to the next.", [(t, t.gap) for t in tools])
        yield counter("gateway_run_cancels", "Runs that were cancelled, or ended at a deadline.", ["cause"], _keyed(tally.cancels))
        yield counter("gateway_gaps", "Gaps that readers were told.", ["reason"], _keyed(tally.gaps))
        yield counter("gateway_gap_chunks", "Chunks that readers missed in those gaps.", ["reason"], _keyed(tally.gap_chunks))


class ResponseTotals(Collector):
    """What a ResponseTally has counted."""

    def __init__(self, tally: ResponseTally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        counts = {(route, f"{status}xx"): count for (route, status), count in self._tally.counts.items()}
        yield counter("gateway_http_responses", "HTTP responses that have begun.", ["route", "status"], counts)


def counter(name: str, text: str, labels: Sequence[str], values: Mapping[Any, int]) -> Metric:
    """Return a counter with a value for each tuple of labels; its name ends in `_total` in the text."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    """Add a histogram's numbers to a family, cumulated as Prometheus wants them."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        total += count
        buckets.append((str(bound), total))
    buckets.append(("+Inf", total + histogram.counts[-1]))
    family.add_metric(labels, buckets, histogram.sum)


def _by_tool(name: str, text: str, values: Iterable[tuple[ToolTally, int]]) -> Metric:
    return counter(name, text, ["tool", "pool"], {(tool.tool, tool.pool): value for tool, value in values})


def _histograms(name: str, text: str, values: Iterable[tuple[ToolTally, Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["tool", "pool"])
    for tool, histogram in values:
        add_histogram(family, [tool.tool, tool.pool], histogram)
    return family


def _keyed(values: dict[str, int]) -> dict[tuple[str], int]:
    return {(key,): value for key, value in values.items()}
