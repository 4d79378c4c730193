"""All that this gateway's runs say to the shared log: who has something to send, and how much may wait.

The source of `commands`: at each round every recorder that has something is asked for it, in the order in which they
spoke up, until the round is full. It has no task of its own.

Bound: `queue_limit_bytes` over all runs. When that is full (the log is unreachable, or slower than the tools), the oldest
batches of the run with the most are dropped, a quarter of its queue at a time. Chunks have numbers, so its readers on
other gateways are told a gap where those are missing. Ends are never dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

import structlog

from gateway.runlog.shared.commands import Commands, Request
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.recorder import Recorder
from gateway.runlog.shared.records import Claim, RunRecord

log = structlog.get_logger("gateway.runlog")


class Writer:
    """The recorders of this gateway's open runs. `on_over(run_id, fenced)` is told of each that is over: its end is in the log, or it
    isn't ours any more."""

    def __init__(self, keys: Keys, options: SharedLogOptions, commands: Commands, on_over: Callable[[str, bool], None]) -> None:
        self.size_bytes = 0
        self._keys = keys
        self._options = options
        self._commands = commands
        self._on_over = on_over
        self._epoch = ""
        self._recorders: dict[str, Recorder] = {}
        self._speaking: deque[Recorder] = deque()
        self._asked: list[Recorder] = []
        self._empty = asyncio.Event()
        self._empty.set()
        commands.attach(self)

    def __len__(self) -> int:
        return len(self._recorders)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._recorders

    def __iter__(self) -> Iterator[Recorder]:
        return iter(list(self._recorders.values()))

    def __getitem__(self, run_id: str) -> Recorder:
        """Return the recorder of a run that was registered here.

        Raises:
            KeyError: there is none, or its end is in the log.
        """
        return self._recorders[run_id]

    def open(self, record: RunRecord, claim: Claim | None) -> None:
        """Begin to record a run whose record the server has."""
        self._recorders[record.id] = Recorder(record, claim, self._epoch, self._keys, self._options, self)
        self._empty.clear()

    def close(self, run_id: str) -> None:
        """Record nothing more of a run that never began."""
        self._forget(run_id, fenced=False)

    def server_is(self, epoch: str) -> None:
        """Say which server, in which life, the next round goes to: another one may have lost any record, so all are looked after."""
        if epoch != self._epoch:
            self._epoch = epoch
            for recorder in self._recorders.values():
                if not recorder.listed:
                    self._list(recorder)

    def doubt(self) -> None:
        """Look after the records of all runs: others may have ended some of them."""
        for recorder in self._recorders.values():
            recorder.doubt()
            if not recorder.listed:
                self._list(recorder)

    def take(self) -> list[Request]:
        """Return what is to be sent now: see Source."""
        # The replies to the last round are in: who has more to say, or has to say it again, goes to the end of the list.
        for recorder in self._asked:
            if not recorder.idle and not recorder.listed:
                self._list(recorder)
        self._asked.clear()
        requests: list[Request] = []
        room_bytes = self._options.flush_bytes
        while self._speaking and room_bytes > 0:
            recorder = self._speaking.popleft()
            recorder.listed = False
            requests.extend(recorder.take(self._epoch))
            self._asked.append(recorder)
            room_bytes -= recorder.size_bytes - recorder.queued_bytes
        return requests

    async def emptied(self) -> None:
        """Wait until there is no run any more."""
        await self._empty.wait()

    # RecorderOwner

    def queued(self, recorder: Recorder, size_bytes: int) -> None:
        """Make room for it, and see that it is sent."""
        self.size_bytes += size_bytes
        if not recorder.listed:
            self._list(recorder)
        if self.size_bytes > self._options.queue_limit_bytes:
            self._make_room()

    def freed(self, size_bytes: int) -> None:
        """Count it."""
        self.size_bytes -= size_bytes

    def finished(self, recorder: Recorder) -> None:
        """Forget the run."""
        self._forget(recorder.record.id, fenced=False)

    def fenced(self, recorder: Recorder) -> None:
        """Forget the run, and tell its owner."""
        run_id = recorder.record.id
        log.warning("run is not ours any more", run=run_id)
        self._forget(run_id, fenced=True)

    def _forget(self, run_id: str, *, fenced: bool) -> None:
        del self._recorders[run_id]
        if not self._recorders:
            self._empty.set()
        self._on_over(run_id, fenced)

    def _list(self, recorder: Recorder) -> None:
        recorder.listed = True
        self._speaking.append(recorder)
        self._commands.wake()

    def _make_room(self) -> None:
        while self.size_bytes > self._options.queue_limit_bytes:
            fullest = max(self._recorders.values(), key=lambda recorder: recorder.queued_bytes, default=None)
            if fullest is None or not fullest.queued_bytes:
                return
            if not fullest.dropped_chunks:
                log.warning("shared log's queue is full: chunks are dropped", run=fullest.record.id)
            fullest.drop_oldest(max(1, fullest.queued_bytes // 4))
