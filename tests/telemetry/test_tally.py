from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import HistogramMetricFamily

from gateway.errors import PROBLEMS
from gateway.runs.policy import Cause
from gateway.runs.stopwatch import Limit
from gateway.telemetry.metrics import add_histogram
from gateway.telemetry.tally import CANCEL_CAUSES, OTHER, TOOLS_LIMIT, Histogram, RunTally


@given(st.lists(st.floats(min_value=0, max_value=20), max_size=50))
def test_histogram_counts_each_value_at_its_bound_and_below(values: list[float]) -> None:
    bounds = (0.5, 1.0, 10.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    family = HistogramMetricFamily("seconds", "Seconds.", labels=[])
    add_histogram(family, [], histogram)
    counted = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert [counted[str(bound)] for bound in bounds] == [sum(value <= bound for value in values) for bound in bounds]
    assert counted["+Inf"] == counted["seconds_count"] == histogram.count == len(values)
    assert counted["seconds_sum"] == pytest.approx(sum(values))


def test_a_value_on_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(1.0)
    assert histogram.counts == [1, 0, 0]


def test_every_cause_of_a_cancel_has_its_place() -> None:
    assert set(CANCEL_CAUSES) == {*(cause.name.lower() for cause in Cause), *(f"deadline_{limit.value}" for limit in Limit)}


def test_tools_beyond_the_limit_are_counted_together() -> None:
    tally = RunTally()
    for number in range(TOOLS_LIMIT + 50):
        tally.tool(f"tool-{number}", "default").started += 1
    assert len(tally.tools) == TOOLS_LIMIT + 1
    assert tally.tool(OTHER, "default").started == 50
    # One that was there before goes on.
    tally.tool("tool-0", "default").started += 1
    assert (tally.tool("tool-0", "default").started, tally.tool(OTHER, "default").started) == (2, 50)


def test_refusals_have_a_bound_too() -> None:
    tally = RunTally()
    problems = list(PROBLEMS)
    for number in range(TOOLS_LIMIT * 3):
        for problem in problems:
            tally.run_refused(f"tool-{number}", problem)
    assert len(tally.refused) <= TOOLS_LIMIT + len(problems)
    assert sum(tally.refused.values()) == TOOLS_LIMIT * 3 * len(problems)
