"""What a run tells its recorder, by which other gateways follow it."""

from __future__ import annotations

from gateway.events import Chunks, Ended, Status
from gateway.runs.policy import Cause
from tests.conftest import FakePool
from tests.runs.conftest import StartRun


class Recorder:
    def __init__(self) -> None:
        self.heard: list[Chunks | Status | Ended] = []
        self.appended = self.status = self.ended = self.heard.append


def test_recorder_hears_everything_in_order(start: StartRun, pool: FakePool) -> None:
    pool.busy = True
    recorder = Recorder()
    run = start(on_disconnect="continue", recorder=recorder)
    run.on_position(1, 2)
    pool.tickets[0].grant()
    pool.calls[0].send(1, 2)
    pool.calls[0].send(3)
    pool.calls[0].end()
    run.cancel(Cause.CLIENT)
    assert recorder.heard == [
        Status("queued", {"position": 1, "depth": 1, "pool": "default"}),
        Status("queued", {"position": 1, "depth": 2, "pool": "default"}),
        Status("running", {"worker": "w-1", "pool": "default", "attempt": 1}),
        run.log.read(1),
        run.log.read(3),
        run.ended,
    ]
