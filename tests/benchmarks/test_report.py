import pytest

from benchmarks import plot, report
from benchmarks.cases.catalogue import chosen
from benchmarks.ceilings import Ceilings
from benchmarks.metrics import Metric
from benchmarks.record import Measurement, Record


@pytest.fixture
def record() -> Record:
    made = Record(["gateway", "envoy"], 3, "lane", ceilings=Ceilings(3e6, 1.5e6), absent={"naive": "no reason"})
    for repeat, (ours, theirs) in enumerate([(2.0, 6.0), (4.0, 5.0), (3.0, 30.0)]):
        made.measurements += [
            Measurement("one", "gateway", repeat, {"cpu_us": ours, "events_per_s": 1e5}),
            Measurement("one", "envoy", repeat, {"cpu_us": theirs, "events_per_s": 2e5}),
        ]
    made.measurements.append(Measurement("big", "gateway", 0, failure="cut"))
    return made


def test_median_is_over_the_repeats(record: Record) -> None:
    assert record.median("one", "gateway", "cpu_us") == 3.0
    assert record.median("one", "envoy", "cpu_us") == 6.0
    assert record.median("big", "gateway", "cpu_us") is None


def test_ratio_is_above_one_in_favour_of_the_gateway() -> None:
    assert Metric("one", "cpu_us", "cost").ratio(3.0, 6.0) == 2.0
    assert Metric("one", "rate", "rate", more_is_better=True).ratio(3.0, 6.0) == 0.5
    assert Metric("stall", "growth", "growth").ratio(-1.0, 6.0) is None


def test_markdown_has_a_row_for_each_measured_figure_and_says_what_is_missing(record: Record) -> None:
    lines = report.markdown(record).splitlines()
    assert lines[0] == "|  | gateway | envoy | × envoy | goal |"
    assert lines[2] == "| one: CPU µs an event | 3.00 | 6.00 | 2.0 | ≤ 3.5 |"
    assert lines[3] == "| one: events/s | 100,000 | 200,000 | 0.5 |  |"
    text = "\n".join(lines)
    assert "both on one core 1,000,000" in text
    assert "naive was not measured: no reason" in text
    assert "big on gateway, repeat 1, failed: cut" in text


def test_plot_draws_only_figures_where_less_is_better(record: Record) -> None:
    drawing = plot.svg(record)
    assert "one: CPU µs an event" in drawing
    assert "events/s" not in drawing


def test_cases_are_chosen_by_name_and_by_group() -> None:
    assert [case.name for case in chosen("ws,one")] == ["one", "ws-one", "ws-paced"]
    with pytest.raises(ValueError, match="unknown case two"):
        chosen("two")
