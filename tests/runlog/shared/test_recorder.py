from __future__ import annotations

from typing import Any

from gateway.events import Chunks, Status
from gateway.runlog.shared.entries import decode_chunks
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.link import LinkLost
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.recorder import ENTRIES_A_COMMAND, STATUS_BYTES, Recorder
from gateway.runlog.shared.records import RunRecord
from tests.runlog.shared.conftest import Gateways, Valkey, batch, ok


class Owner:
    """Counts what a recorder says."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.over: list[str] = []

    def queued(self, recorder: Recorder, size_bytes: int) -> None:
        self.size_bytes += size_bytes

    def freed(self, size_bytes: int) -> None:
        self.size_bytes -= size_bytes

    def finished(self, recorder: Recorder) -> None:
        self.over.append("finished")

    def fenced(self, recorder: Recorder) -> None:
        self.over.append("fenced")


def recorder_of(owner: Owner, record: RunRecord | None = None, prefix: str = "t:", **options: Any) -> Recorder:
    record = record or RunRecord("r_a", "count", owner="g")
    return Recorder(record, None, "server:word", Keys(prefix), SharedLogOptions(prefix=prefix, **options), owner)


def entries(command: tuple[Any, ...]) -> list[tuple[bytes, bytes]]:
    values = command[command.index(86_400_000) + 1 :]
    return list(zip(values[::2], values[1::2], strict=True))


async def test_what_was_carried_out_but_not_acknowledged_is_no_fence(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway, owner = await gateways(shared_valkey), Owner()
    record = await gateway.log.register(RunRecord("r_a", "count"))
    recorder = recorder_of(owner, record, gateways.prefix)
    recorder.appended(batch(1, b"1"))
    recorder.ended(ok(1))
    for lost in (True, True, False):
        for request in recorder.take("server:word"):
            reply = await gateway.log._commands.ask(*request.command)
            assert reply == 1
            request.settle(LinkLost("cut") if lost else reply)
    assert (owner.over, owner.size_bytes, recorder.idle) == (["finished"], 0, True)
    with shared_valkey.client() as client:
        assert [entry for entry, _ in client.xrange(f"{gateways.prefix}run:{{r_a}}:log")] == [b"1-0", b"2-0"]


def test_what_is_under_way_is_sent_again_before_anything_new() -> None:
    owner = Owner()
    recorder = recorder_of(owner)
    recorder.appended(batch(1, b"1"))
    (first,) = recorder.take("server:word")
    recorder.appended(batch(2, b"2"))
    first.settle(LinkLost("cut"))
    (again,) = recorder.take("server:word")
    assert again.command == first.command
    again.settle(1)
    (second,) = recorder.take("server:word")
    assert [decode_chunks(value).payloads for _, value in entries(second.command)] == [[b"2"]]


def test_another_server_gets_the_record_first() -> None:
    recorder = recorder_of(Owner())
    recorder.appended(batch(1, b"1"))
    restore, append = recorder.take("other:word")
    assert restore.command[1] != append.command[1]
    restore.settle(1)
    append.settle(1)
    assert recorder.idle
    assert recorder.take("other:word") == []


def test_neighbouring_batches_are_joined_up_to_a_bound_and_not_over_a_hole_or_a_status() -> None:
    recorder = recorder_of(Owner(), entry_bytes=150)
    for item in (batch(1, b"1"), batch(2, b"2"), batch(3, b"3"), batch(4, b"4"), batch(6, b"6")):
        recorder.appended(item)
    recorder.status(Status("queued"))
    recorder.status(Status("running"))
    recorder.appended(batch(7, b"7"))
    (request,) = recorder.take("server:word")
    found = entries(request.command)
    assert [decode_chunks(value).payloads for field, value in found if field == b"c"] == [[b"1", b"2", b"3"], [b"4"], [b"6"], [b"7"]]
    assert [field for field, _ in found] == [b"c", b"c", b"c", b"s", b"c"]


def test_one_command_is_bounded_in_entries() -> None:
    recorder = recorder_of(Owner(), entry_bytes=1)
    for number in range(1, ENTRIES_A_COMMAND + 3):
        recorder.appended(batch(number, b"x"))
    recorder.ended(ok(ENTRIES_A_COMMAND + 2))
    (first,) = recorder.take("server:word")
    assert len(entries(first.command)) == ENTRIES_A_COMMAND
    first.settle(1)
    rest, end = recorder.take("server:word")
    assert len(entries(rest.command)) == 2
    rest.settle(1)
    end.settle(1)
    assert recorder.take("server:word") == []


def test_dropping_takes_the_oldest_and_leaves_what_is_under_way_and_the_end() -> None:
    owner = Owner()
    recorder = recorder_of(owner)
    recorder.appended(batch(1, b"1"))
    recorder.take("server:word")
    recorder.status(Status("running"))
    for number in (2, 3, 4):
        recorder.appended(batch(number, b"x" * 100))
    recorder.ended(ok(4))
    recorder.drop_oldest(STATUS_BYTES + 200)
    assert recorder.dropped_chunks == 2
    assert owner.size_bytes == recorder.size_bytes
    requests = recorder.take("server:word")
    requests[0].settle(1)
    rest, end = recorder.take("server:word")
    assert [decode_chunks(value).first for _, value in entries(rest.command)] == [4]
    rest.settle(1)
    end.settle(1)
    assert (owner.size_bytes, owner.over) == (0, ["finished"])


def test_a_run_that_is_over_takes_nothing_more() -> None:
    owner = Owner()
    recorder = recorder_of(owner)
    recorder.ended(ok(0))
    recorder.ended(ok(1))
    recorder.appended(Chunks(1, [b"1"], 49))
    recorder.status(Status("running"))
    (end,) = recorder.take("server:word")
    end.settle(-1)
    assert (owner.over, owner.size_bytes, recorder.idle) == (["fenced"], 0, True)
