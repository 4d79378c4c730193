"""An optional progress bar (rich) around a stream:

    for chunk in track(client.stream("train_with_progress", {"epochs": 5}), total=5):
        ...

It shows what meter.py finds in the chunks, else how many there have been, on stderr, and nothing where that is no terminal.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.client.meter import Meter


class ProgressBar:
    """One bar; a context manager. `total` is the whole, where its caller knows it."""

    def __init__(self, description: str = "", *, total: float | None = None, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(description, total=total)
        self._meter = Meter(total=total)
        self._count = 0

    def update(self, chunk: Any) -> None:
        """Show what a chunk says."""
        self._count += 1
        progress = self._meter.read(chunk)
        if progress is None:
            self._bar.update(self._task, completed=self._count)
        else:
            self._bar.update(self._task, completed=progress.done, total=progress.total)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def track(stream: Iterable[Any], description: str = "", *, total: float | None = None, console: Console | None = None) -> Iterator[Any]:
    """Yield a stream's chunks, showing a progress bar."""
    with ProgressBar(description, total=total, console=console) as bar:
        for chunk in stream:
            bar.update(chunk)
            yield chunk


async def track_async(
    stream: AsyncIterable[Any], description: str = "", *, total: float | None = None, console: Console | None = None
) -> AsyncIterator[Any]:
    """Yield an asynchronous stream's chunks, showing a progress bar; when this is closed, the stream is."""
    async with contextlib.AsyncExitStack() as stack:
        bar = stack.enter_context(ProgressBar(description, total=total, console=console))
        if hasattr(stream, "aclose"):
            stack.push_async_callback(stream.aclose)
        async for chunk in stream:
            bar.update(chunk)
            yield chunk
