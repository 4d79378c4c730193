from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gateway.cli.live import LiveView
from gateway.cli.sparkline import sparkline
from gateway.client import Chunk, End, Gap, Start, Status


def seen(*events: Any, arguments: dict[str, Any] | None = None, seconds: float = 2.0) -> str:
    """What stands on a terminal after these events."""
    now = iter([0.0])
    view = LiveView(Console(file=io.StringIO(), force_terminal=True, width=100), arguments or {}, lambda: next(now, seconds))
    try:
        for event in events:
            view.show(event)
    finally:
        view.close()
    console = Console(file=io.StringIO(), width=100)
    console.print(view.picture())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def chunks(*values: Any) -> list[Chunk]:
    return [Chunk(number, value, b"") for number, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("values", "bars"),
    [([0, 7], "▁█"), ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"), ([5, 5], "▄▄"), ([], ""), ([1, float("inf"), 2], "▁█"), ([-1], "▄")],
)
def test_a_sparkline_goes_from_the_lowest_to_the_highest(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


def test_numbers_are_a_table_with_their_history() -> None:
    text = seen(*chunks({"loss": 1.0, "name": "x"}, {"loss": 0.5, "ok": True}))
    assert [line.split() for line in text.splitlines() if "loss" in line] == [["loss", "0.5", "█▁", "0.5", "1"]]
    assert "ok" not in text


def test_progress_is_a_bar() -> None:
    assert "40 %" in seen(*chunks({"epoch": 2}), arguments={"epochs": 5})
    assert "%" not in seen(*chunks({"epoch": 2}))


def test_text_is_put_together_and_its_last_lines_are_shown() -> None:
    text = seen(*chunks("The quick ", "brown\n", *(f"line {n}\n" for n in range(9))))
    assert "quick" not in text
    assert "line 8" in text
    assert "The quick brown" in seen(*chunks("The quick ", "brown"))


def test_what_is_neither_is_json_and_markup_is_text() -> None:
    assert '{"status": "[bold]done"}' in seen(*chunks({"status": "[bold]done"}))


def test_the_state_is_the_runs() -> None:
    start = Start({"run": "r_1", "tool": "train"})
    assert "train r_1  queued, 2 of 5" in seen(start, Status({"state": "queued", "position": 2, "depth": 5}))
    assert "train r_1  ok" in seen(start, *chunks(1), End("ok", 1))


def test_the_rate_is_of_the_chunks_and_what_was_missed_is_said() -> None:
    assert "3 chunks, 4 missed in 2.0 s, 1.5/s" in seen(*chunks(1, 2), Gap(3, 6, "slow_consumer"), Chunk(7, 3, b""))


def test_fields_are_bounded() -> None:
    text = seen(*chunks({f"field-{n}": n for n in range(100)}))
    assert text.count("field-") == 12
