"""The table of a run: for the terminal, and as Markdown for the README."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from benchmarks.metrics import METRICS, Metric, spell
from benchmarks.record import Record, machine

NOT_MEASURED = "–"


def columns(record: Record) -> list[str]:
    """Return the table's head."""
    ours, *peers = record.targets
    return ["", ours, *peers, *(f"× {peer}" for peer in peers), "goal"]


def rows(record: Record) -> Iterator[tuple[Metric, list[str], bool | None]]:
    """Yield each metric that was measured, its cells, and whether the goal is reached (None: no goal, or no figure)."""
    ours, *peers = record.targets
    for metric in METRICS:
        values = {name: record.median(metric.case, name, metric.figure) for name in record.targets}
        if all(value is None for value in values.values()):
            continue
        value = values[ours]
        cells = [metric.title, *(NOT_MEASURED if found is None else spell(found) for found in values.values())]
        for peer in peers:
            theirs = values[peer]
            ratio = None if value is None or theirs is None else metric.ratio(value, theirs)
            cells.append(NOT_MEASURED if ratio is None else f"{ratio:.1f}")
        cells.append("" if metric.goal is None else f"{'≥' if metric.more_is_better else '≤'} {metric.goal:,g}")
        yield metric, cells, None if metric.goal is None or value is None else metric.is_met(value)


def notes(record: Record) -> Iterator[str]:
    """Yield what has to be said beside the table, a sentence each."""
    on = machine()
    yield (
        f"{record.began:%Y-%m-%d}, {on['cpu']}, {on['cores']} cores, {on['kernel']}, Python {on['python']}; "
        f"{record.build}, transport {record.transport}, medians of {record.repeats}. × is how many times better the gateway is."
    )
    if record.ceilings is not None:
        found = record.ceilings
        yield (
            f"Ceilings without a target, events/s: upstream {spell(found.upstream_per_s)}, load generator {spell(found.load_per_s)}, "
            f"both on one core {spell(found.together_per_s)}."
        )
    busy = [
        (case, name, value)
        for case in dict.fromkeys(metric.case for metric in METRICS)
        for name in record.targets
        if (value := record.median(case, name, "load_core_busy")) is not None
    ]
    if busy:
        shares = ", ".join(f"{case} {name} {value:.0%}" for case, name, value in busy)
        yield f"How busy upstream and load generator kept their core: {shares}."
    for name, reason in record.absent.items():
        yield f"{name} was not measured: {reason}."
    for measured in record.measurements:
        if measured.failure is not None:
            yield f"{measured.case} on {measured.target}, repeat {measured.repeat + 1}, failed: {measured.failure}"


def show(record: Record, console: Console) -> None:
    """Print the table and its notes."""
    table = Table(*columns(record), title="Benchmarks", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for _, cells, is_met in rows(record):
        style = "" if is_met is None else "green" if is_met else "red"
        table.add_row(cells[0], f"[{style}]{cells[1]}[/]" if style else cells[1], *cells[2:])
    console.print(table)
    for note in notes(record):
        console.print(note, highlight=False, markup=False)


def markdown(record: Record) -> str:
    """Return the table and its notes as Markdown."""
    head = columns(record)
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(cells)} |" for _, cells, _ in rows(record)]
    return "\n".join([*lines, "", *(f"{note}  " for note in notes(record))])
