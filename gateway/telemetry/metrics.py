"""The tallies as Prometheus metrics, and the text of a scrape.

`Metrics` is what one gateway shows; nothing is global, so any number of gateways can live in a process. Collectors add
what other objects know (endpoints/gauges.py). All of them look at one moment, so that the numbers of a scrape fit together; the
text is then made in steps of a millisecond or so, between which the event loop goes on: with many tools it takes a tenth of a second.
Names and labels: docs/metrics.md. Standard: the Prometheus text format 0.0.4, OpenMetrics 1.0 for who asks for that.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.telemetry.tally import Histogram, ResponseTally, RunTally, ToolTally

# Tools whose numbers are written in one step.
TOOLS_A_STEP = 8
_END = b"# EOF\n"


class Metrics:
    """What one gateway shows to Prometheus.

    A collector's `collect` is a generator that has read all its numbers when it yields its first metric. A metric may come in parts, one
    after the other: Metric objects of the same name.
    """

    def __init__(self, *, version: str, transport: str, collectors: Iterable[Collector]) -> None:
        """`collectors` are asked at each scrape, in order."""
        self._collectors = [BuildInfo(version, transport), *collectors, ProcessCollector(registry=None)]

    async def scrape(self, accept: str | None = None) -> tuple[bytes, str]:
        """Return all metrics as they are now, as text, and its media type: the one that an Accept header asks for, else the plain one."""
        encode, media_type = _encoder(accept or "")
        parts: list[bytes] = []
        name = end = b""
        for family in self._look():
            text = encode(_One(family))
            if text.endswith(_END):
                text, end = text[: -len(_END)], _END
            if name == (name := family.name.encode()):
                # A further part: without the two lines about the metric.
                text = text.split(b"\n", 2)[2]
            parts.append(text)
            await asyncio.sleep(0)
        return b"".join((*parts, end)), media_type

    def _look(self) -> Iterator[Metric]:
        """Return the metrics of this moment, each made when it is asked for."""
        looks = [iter(collector.collect()) for collector in self._collectors]
        firsts = [next(look, None) for look in looks]
        return chain.from_iterable(chain((first,), look) for first, look in zip(firsts, looks, strict=True) if first is not None)


class _One(Collector):
    """A registry, as the library's encoders see one, of a single metric."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:
        # The library compares a version that is no number with numbers.
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4


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
        # Copies, which don't change while the text is made.
        tools = [tool.copy() for tool in tally.tools]
        refused, cancels, gaps, missed = dict(tally.refused), _keyed(tally.cancels), _keyed(tally.gaps), _keyed(tally.gap_chunks)
        steps = [tools[start : start + TOOLS_A_STEP] for start in range(0, len(tools), TOOLS_A_STEP)] or [[]]
        for step in steps:
            yield _by_tool("gateway_runs_started", "Runs that were accepted, queued ones included.", step, lambda tool: tool.started)
        for step in steps:
            ended = {(tool.tool, tool.pool, outcome): count for tool in step for outcome, count in tool.ended.items()}
            yield counter("gateway_runs_ended", "Runs that have ended.", ["tool", "pool", "outcome"], ended)
        for step in steps:
            yield _by_tool("gateway_run_chunks", "Chunks that tools have yielded.", step, lambda tool: tool.chunks)
        for step in steps:
            yield _by_tool("gateway_run_chunk_bytes", "Bytes of those chunks, as JSON.", step, lambda tool: tool.chunk_bytes)
        for step in steps:
            yield _histograms("gateway_run_queue_seconds", "From a run's acceptance to its worker.", step, lambda tool: tool.queue)
        for step in steps:
            text = "From a run's acceptance to its first chunk."
            yield _histograms("gateway_run_first_chunk_seconds", text, step, lambda tool: tool.first_chunk)
        for step in steps:
            yield _histograms("gateway_run_duration_seconds", "From a run's acceptance to its end.", step, lambda tool: tool.duration)
        for step in steps:
            yield _histograms("gateway_run_chunk_gap_seconds", "From one batch of a run's chunks to the next.", step, lambda tool: tool.gap)
        yield counter("gateway_runs_refused", "Runs that were asked for and never began.", ["tool", "problem"], refused)
        yield counter("gateway_run_cancels", "Runs that were cancelled, or ended at a deadline.", ["cause"], cancels)
        yield counter("gateway_gaps", "Gaps that readers were told.", ["reason"], gaps)
        yield counter("gateway_gap_chunks", "Chunks that readers missed in those gaps.", ["reason"], missed)


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


def _by_tool(name: str, text: str, tools: Iterable[ToolTally], value: Callable[[ToolTally], int]) -> Metric:
    return counter(name, text, ["tool", "pool"], {(tool.tool, tool.pool): value(tool) for tool in tools})


def _histograms(name: str, text: str, tools: Iterable[ToolTally], histogram: Callable[[ToolTally], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["tool", "pool"])
    for tool in tools:
        add_histogram(family, [tool.tool, tool.pool], histogram(tool))
    return family


def _keyed(values: dict[str, int]) -> dict[tuple[str], int]:
    return {(key,): value for key, value in values.items()}
