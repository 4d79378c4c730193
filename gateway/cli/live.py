"""A stream on a terminal: a progress bar, the latest numbers with their history, the last lines of text, how fast it goes.

Drawn by rich's own thread a few times a second, whatever the rate of the chunks; `show` only takes note, under a lock.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gateway.cli.sparkline import sparkline
from gateway.client import Chunk, End, Gap, Start, Status
from gateway.client.meter import Meter, Progress, is_number

_FIELDS_LIMIT = 12
_HISTORY = 40
_TEXT_LIMIT = 2000
_LINES = 6
_PER_SECOND = 8


class LiveView:
    """Shows a stream's events on a terminal until it is closed; the last picture stays."""

    def __init__(self, console: Console, arguments: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._began = clock()
        self._ended: float | None = None
        self._title = ""
        self._state = "started"
        self._count = 0
        self._missed = 0
        self._fields: dict[str, deque[float]] = {}
        self._text = ""
        self._meter = Meter(arguments)
        self._progress: Progress | None = None
        self._live = Live(console=console, get_renderable=self.picture, refresh_per_second=_PER_SECOND)
        self._live.start()

    def show(self, event: Any) -> None:
        """Take the next event."""
        with self._lock:
            if isinstance(event, Chunk):
                self._chunk(event.value)
            elif isinstance(event, Start):
                self._title = f"{event.document.get('tool', '')} {event.document.get('run', '')}"
            elif isinstance(event, Status):
                place = event.document.get("position")
                self._state = str(event.document.get("state")) + ("" if place is None else f", {place} of {event.document.get('depth')}")
            elif isinstance(event, Gap):
                self._missed += event.last - event.first + 1
            elif isinstance(event, End):
                self._state = event.status

    def close(self) -> None:
        """Draw it a last time; idempotent."""
        if self._ended is None:
            self._ended = self._clock()
            self._live.stop()

    def picture(self) -> RenderableType:
        """Return what is to be seen now."""
        with self._lock:
            parts: list[RenderableType] = [Text.assemble((self._title, "bold"), "  ", (self._state, "cyan"))]
            if self._progress is not None:
                parts.append(self._bar(self._progress))
            if self._fields:
                parts.append(self._numbers())
            if self._text:
                parts += [Text(line, overflow="ellipsis", no_wrap=True) for line in self._text.splitlines()[-_LINES:]]
            parts.append(Text(self._rate(), style="dim"))
            return Group(*parts)

    def _chunk(self, value: Any) -> None:
        self._count += 1
        self._state = "running"
        self._progress = self._meter.read(value) or self._progress
        if isinstance(value, str):
            self._text = (self._text + value)[-_TEXT_LIMIT:]
            return
        members = value if isinstance(value, Mapping) else {"value": value}
        numbers = {name: number for name, number in members.items() if is_number(number)}
        for name, number in numbers.items():
            if name in self._fields or len(self._fields) < _FIELDS_LIMIT:
                self._fields.setdefault(name, deque(maxlen=_HISTORY)).append(number)
        if not numbers:
            self._text = f"{self._text}\n{json.dumps(value, ensure_ascii=False, default=str)[:_TEXT_LIMIT]}"[-_TEXT_LIMIT:]

    def _bar(self, progress: Progress) -> RenderableType:
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=progress.total, completed=progress.done, width=40), f"{100 * progress.done / progress.total:.0f} %")
        return row

    def _numbers(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("", no_wrap=True)
        table.add_column("now", justify="right", no_wrap=True)
        table.add_column(f"last {_HISTORY}", no_wrap=True, min_width=_HISTORY)
        table.add_column("from", justify="right", no_wrap=True)
        table.add_column("to", justify="right", no_wrap=True)
        for name, history in self._fields.items():
            values = list(history)
            table.add_row(Text(name), f"{values[-1]:g}", sparkline(values), f"{min(values):g}", f"{max(values):g}")
        return table

    def _rate(self) -> str:
        elapsed_s = (self._ended or self._clock()) - self._began
        missed = f", {self._missed} missed" if self._missed else ""
        return f"{self._count} chunks{missed} in {elapsed_s:.1f} s, {self._count / max(elapsed_s, 0.001):.1f}/s"
