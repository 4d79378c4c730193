from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gateway.client.meter import Meter
from gateway.client.progress import track, track_async


@pytest.mark.parametrize(
    ("chunk", "arguments", "progress"),
    [
        ({"step": 2, "total": 5, "progress": 40.0}, {}, (2, 5)),
        ({"epoch": 3, "loss": 0.1}, {"epochs": 4}, (3, 4)),
        ({"epoch": 9}, {"epochs": 4}, (4, 4)),
        ({"epoch": 3}, {}, None),
        ({"progress": 0.25}, {}, (0.25, 1.0)),
        ({"progress": 40}, {}, (40, 100.0)),
        ({"percent": 1}, {}, (1, 100.0)),
        ({"step": True, "total": 5}, {}, None),
        ({"step": 1, "total": 0}, {}, None),
        ({"rows": 100, "total": 300}, {}, None),
        ("text", {}, None),
        (None, {}, None),
    ],
)
def test_progress_is_what_a_chunk_says_by_the_usual_names(chunk: Any, arguments: dict[str, Any], progress: Any) -> None:
    assert Meter(arguments).read(chunk) == progress


def test_progress_over_1_once_is_a_percentage_from_then_on() -> None:
    meter = Meter()
    assert [meter.read({"progress": value}) for value in (1, 2, 1)] == [(1, 1.0), (2, 100.0), (1, 100.0)]


def test_a_bar_follows_the_chunks_and_passes_them_on() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    chunks = [{"step": n, "total": 3} for n in (1, 2, 3)]
    assert list(track(chunks, "training", console=console)) == chunks
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "training" in shown
    assert "3/3" in shown


def test_a_bar_shows_nothing_where_there_is_no_terminal() -> None:
    console = Console(file=io.StringIO())
    assert list(track(["a", "b"], console=console)) == ["a", "b"]
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


async def test_an_asynchronous_bar_closes_its_stream() -> None:
    closed = []

    async def stream() -> Any:
        try:
            yield {"epoch": 1}
            yield {"epoch": 2}
        finally:
            closed.append(True)

    tracked = track_async(stream(), total=5, console=Console(file=io.StringIO()))
    assert await anext(tracked) == {"epoch": 1}
    await tracked.aclose()  # type: ignore[attr-defined]
    assert closed == [True]
