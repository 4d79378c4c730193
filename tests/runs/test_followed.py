"""A run of another gateway as its readers here have it, with the log that delivers it played by the test."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.caller import ANONYMOUS
from gateway.errors import GatewayError
from gateway.events import ChunkAttributes, Chunks, Ended, Event, Gap, Outcome, Started, Status, Timing
from gateway.runlog.budget import MemoryBudget
from gateway.runlog.shared.records import RunRecord
from gateway.runs.followed import FollowedRun
from gateway.runs.policy import Cause, Overflow, Role, RunLimits
from tests.runs.conftest import RUN_ID, Reader

DETAILS = {"on_disconnect": "cancel", "heartbeat_ms": 10000}
OK = Ended(Outcome.OK, 3, {"worker_id": "default-1"}, Timing(1, 2, 3))
RUNNING = Status("running", {"worker": "default-1", "pool": "default", "attempt": 1})


def queued(position: int) -> Status:
    return Status("queued", {"position": position, "depth": position, "pool": "default"})


class FakeFollowing:
    """What the log gives to who follows a run: it keeps what the owner is told."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.closed = False

    def readers(self, count: int) -> None:
        self.told.append(count)

    def close(self) -> None:
        self.closed = True


class FakeFollower:
    """A RunFollower that notes what it is asked for; the test delivers by the run's own methods."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.followings: list[FakeFollowing] = []

    def follow(self, run: FollowedRun) -> None:
        self.said.append("follow")
        self.followings.append(FakeFollowing())
        run.following = self.followings[-1]  # type: ignore[assignment]

    def unfollow(self, run: FollowedRun) -> None:
        self.said.append("unfollow")
        following, run.following = run.following, None
        if following is not None:
            following.close()

    def ask_to_cancel(self, run: FollowedRun) -> None:
        self.said.append("cancel")


@pytest.fixture
def follower() -> FakeFollower:
    return FakeFollower()


def make(follower: FakeFollower, limits: RunLimits | None = None, budget: MemoryBudget | None = None, **fields: Any) -> FollowedRun:
    record = RunRecord(RUN_ID, "count", **{"pool": "default", "policy": "cancel", "details": DETAILS, "owner": "other", **fields})
    return FollowedRun(record, limits or RunLimits(), budget or MemoryBudget(), follower)


def batch(first: int, count: int = 1, size: int = 1) -> Chunks:
    payloads = [str(number).rjust(size, "0").encode() for number in range(first, first + count)]
    return Chunks(first, payloads, size * count)


def numbers(events: list[Event]) -> list[int]:
    return [event.first + index for event in events if isinstance(event, Chunks) for index in range(len(event.payloads))]


# a reader's story


def test_a_first_reader_is_told_the_start_as_the_owner_says_it_then_all_then_the_end(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run)
    assert (reader.all(), follower.said) == ([Started(RUN_ID, "count", DETAILS, None)], ["follow"])
    run.on_batch(batch(1, 2))
    run.on_batch(batch(3))
    run.on_end(OK)
    assert reader.wakes == 3
    events = reader.all()
    assert (numbers(events), events[-1]) == ([1, 2, 3], OK)
    assert (run.state, run.chunks, run.timing(), run.worker_id) == ("ok", 3, OK.timing, "default-1")


def test_a_reader_that_comes_back_ahead_of_the_record_and_of_the_log_gets_nothing_twice(follower: FakeFollower) -> None:
    """Its last chunk came from the owner itself, and the log has yet to hear of it."""
    run = make(follower, chunks=2)
    reader = Reader(run, after=5)
    assert reader.take() == Started(RUN_ID, "count", DETAILS, 6)
    run.on_batch(batch(1, 4))
    assert reader.all() == []
    run.on_batch(batch(5, 3))
    run.on_end(Ended(Outcome.OK, 7))
    assert numbers(reader.all()) == [6, 7]


def test_a_reader_that_is_ahead_of_a_run_which_ends_sooner_is_told_the_end(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run, after=9)
    run.on_batch(batch(1, 3))
    run.on_end(OK)
    assert reader.all() == [Started(RUN_ID, "count", DETAILS, 10), OK]


def test_a_live_reader_begins_after_what_the_record_or_the_copy_has(follower: FakeFollower) -> None:
    run = make(follower, chunks=4)
    early = Reader(run, live=True)
    assert early.take() == Started(RUN_ID, "count", DETAILS, 5)
    run.on_batch(batch(1, 6))
    late = Reader(run, live=True)
    run.on_batch(batch(7))
    assert (numbers(early.all()), numbers(late.all())) == ([5, 6, 7], [7])


def test_attributes_keep_their_chunks(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run)
    final = ChunkAttributes(is_final=True)
    run.on_batch(batch(1, 2))
    run.on_batch(Chunks(3, [b"3", b"4"], 2, {4: final}))
    chunks = [event for event in reader.all() if isinstance(event, Chunks)]
    assert [part.attributes for part in chunks] == [None, {4: final}]


# gaps


def test_a_gap_of_the_log_is_told_to_those_that_it_concerns(follower: FakeFollower) -> None:
    run = make(follower)
    first, ahead = Reader(run), Reader(run, after=60)
    run.on_gap(1, 49)
    run.on_batch(batch(50, 20))
    assert first.all()[1:] == [Gap(1, 49, "evicted"), run.log.read(50)]
    assert numbers(ahead.all()) == list(range(61, 70))


def test_a_gap_ahead_of_the_end_is_told_before_it(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run)
    run.on_batch(batch(1, 2))
    assert numbers(reader.all()) == [1, 2]
    run.on_gap(3, 9)
    end = Ended(Outcome.ERROR, 9, error=GatewayError("owner-lost", "gone"))
    run.on_end(end)
    assert reader.all() == [Gap(3, 9, "evicted"), end]


def test_a_reader_slower_than_the_copys_bounds_sees_a_gap_and_pauses_nobody(follower: FakeFollower) -> None:
    run = make(follower, RunLimits(log_chunks=10))
    slow = Reader(run)
    for number in range(1, 41):
        run.on_batch(batch(number))
    run.on_end(Ended(Outcome.OK, 40))
    events = slow.all()
    assert events[1] == Gap(1, 30, "evicted")
    assert numbers(events) == list(range(31, 41))


# overflow, while the copy is still being filled


@pytest.mark.parametrize("overflow", [Overflow.LATEST, Overflow.DISCONNECT])
def test_who_is_ahead_of_a_copy_that_is_being_filled_lags_by_nothing(follower: FakeFollower, overflow: Overflow) -> None:
    run = make(follower)
    reader = Reader(run, after=100, overflow=overflow, lag_bytes=1000)
    for first in range(1, 101, 10):
        run.on_batch(batch(first, 10, size=100))
    assert reader.all() == [Started(RUN_ID, "count", DETAILS, 101)]
    # From here on it lags, and only what came since counts.
    run.on_batch(batch(101, 1, size=500))
    run.on_batch(batch(102, 1, size=10))
    assert not reader.subscription.cut
    assert numbers(reader.all()) == [101, 102]


def test_latest_is_moved_to_the_newest_chunk_once_it_lags(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run, after=2, overflow=Overflow.LATEST, lag_bytes=1000)
    for number in range(1, 9):
        run.on_batch(batch(number, 1, size=600))
    run.on_end(Ended(Outcome.OK, 8))
    events = reader.all()
    gaps = [event for event in events if isinstance(event, Gap)]
    assert [gap.reason for gap in gaps] == ["slow_consumer"]
    missing = [number for gap in gaps for number in range(gap.first, gap.last + 1)]
    assert (sorted(missing + numbers(events)), numbers(events)[-1]) == ([3, 4, 5, 6, 7, 8], 8)


def test_disconnect_is_cut_once_it_lags(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run, overflow=Overflow.DISCONNECT, lag_bytes=1000)
    for number in range(1, 5):
        run.on_batch(batch(number, 1, size=600))
    assert (reader.subscription.cut, reader.all()) == (True, [Started(RUN_ID, "count", DETAILS, None)])


# statuses


def test_statuses_are_shown_to_those_who_saw_it_wait(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run)
    run.on_status(queued(2))
    assert reader.all()[1:] == [queued(2)]
    assert run.state == "queued"
    late = Reader(run)
    assert late.all()[1:] == [queued(2)]
    run.on_status(RUNNING)
    assert (reader.all(), late.all(), run.state, run.worker_id) == ([RUNNING], [RUNNING], "running", "default-1")
    assert Reader(run).all()[1:] == []


def test_a_wait_that_is_history_is_not_shown(follower: FakeFollower) -> None:
    run = make(follower, state="running", chunks=1)
    reader = Reader(run, after=1)
    run.on_status(queued(1))
    run.on_status(RUNNING)
    run.on_batch(batch(1, 2))
    assert [type(event) for event in reader.all()] == [Started, Chunks]
    assert run.state == "running"


def test_a_run_that_never_waited_shows_no_status(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run)
    run.on_status(RUNNING)
    assert (reader.all()[1:], reader.wakes, run.state) == ([], 0, "running")


# the copy


def test_the_copy_goes_with_the_last_reader_and_is_begun_anew(follower: FakeFollower) -> None:
    budget = MemoryBudget()
    run = make(follower, budget=budget)
    first, second = Reader(run), Reader(run)
    (following,) = follower.followings
    run.on_batch(batch(1, 3))
    first.close()
    assert (follower.said, following.closed, budget.size_bytes > 0) == (["follow"], False, True)
    second.close()
    assert (follower.said, following.closed, budget.size_bytes) == (["follow", "unfollow"], True, 0)
    again = Reader(run)
    assert follower.said == ["follow", "unfollow", "follow"]
    run.on_batch(batch(1, 3))
    assert numbers(again.all()) == [1, 2, 3]
    again.close()
    assert budget.size_bytes == 0


def test_an_ended_run_is_read_again_from_its_beginning(follower: FakeFollower) -> None:
    run = make(follower)
    for _ in range(2):
        reader = Reader(run)
        run.on_batch(batch(1, 3))
        run.on_end(OK)
        events = reader.all()
        assert (numbers(events), events[-1]) == ([1, 2, 3], OK)
        reader.close()
    assert follower.said == ["follow", "unfollow"] * 2


def test_a_reader_who_leaves_as_it_is_woken_disturbs_nobody(follower: FakeFollower) -> None:
    run = make(follower)
    leaver = run.subscribe(lambda: leaver.close(), ANONYMOUS)
    reader = Reader(run)
    run.on_batch(batch(1))
    run.on_end(Ended(Outcome.OK, 1))
    assert numbers(reader.all()) == [1]
    reader.close()
    assert follower.said == ["follow", "unfollow"]


# the end


def test_who_waits_for_the_end_follows_and_is_told_once(follower: FakeFollower) -> None:
    run = make(follower)
    told: list[str] = []
    run.when_ended(lambda: told.append("a"))
    forget = run.when_ended(lambda: told.append("b"))
    forget()
    forget()
    assert follower.said == ["follow"]
    run.on_end(OK)
    assert (told, follower.said) == (["a"], ["follow", "unfollow"])


def test_who_stops_waiting_lets_the_copy_go(follower: FakeFollower) -> None:
    run = make(follower)
    run.when_ended(lambda: None)()
    assert follower.said == ["follow", "unfollow"]


def test_the_end_stays_known_while_a_new_copy_is_filled(follower: FakeFollower) -> None:
    """Of two who waited, the first one reads the result before the second one has looked."""
    run = make(follower)
    run.when_ended(lambda: None)
    run.on_end(OK)
    reader = Reader(run)
    assert (run.ended, run.known_end, run.state, run.worker_id) == (None, OK, "ok", "default-1")
    assert reader.all() == [Started(RUN_ID, "count", DETAILS, None)]


def test_the_records_end_is_known_before_anybody_reads(follower: FakeFollower) -> None:
    run = make(follower, state="ok", ended=OK, chunks=3)
    assert (run.known_end, run.ended, run.state, run.chunks, run.worker_id) == (OK, None, "ok", 3, "default-1")
    assert (run.timing(), follower.said) == (OK.timing, [])


def test_a_newer_record_is_taken_until_there_is_an_end(follower: FakeFollower) -> None:
    run = make(follower)
    run.refresh(RunRecord(RUN_ID, "count", state="running", chunks=5))
    assert (run.state, run.chunks) == ("running", 5)
    run.refresh(RunRecord(RUN_ID, "count", state="ok", chunks=3, ended=OK))
    run.refresh(RunRecord(RUN_ID, "count", state="running", chunks=5))
    assert (run.state, run.known_end) == ("ok", OK)


def test_a_copy_that_expired_is_no_end_of_the_run(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run)
    expired = Ended(Outcome.EXPIRED, 0, error=GatewayError("run-expired", "not known any more"))
    run.on_end(expired)
    assert reader.all()[-1] == expired
    reader.close()
    Reader(run)
    assert (run.known_end, run.state) == (None, "queued")


def test_cancel_asks_the_owner_unless_it_is_over(follower: FakeFollower) -> None:
    run = make(follower)
    run.cancel(Cause.CLIENT)
    assert (run.ended, follower.said) == (None, ["cancel"])
    make(follower, ended=OK).cancel(Cause.CLIENT)
    assert follower.said == ["cancel"]


def test_a_cut_leaves_readers_without_an_end_and_lets_nobody_wait(follower: FakeFollower) -> None:
    run = make(follower)
    reader = Reader(run)
    told: list[str] = []
    run.when_ended(lambda: told.append("over"))
    run.cut()
    assert (reader.subscription.cut, reader.wakes, told, run.known_end) == (True, 1, ["over"], None)
    assert [type(event) for event in reader.all()] == [Started]


# subscribers


def test_the_owner_is_told_how_many_subscribers_there_are(follower: FakeFollower) -> None:
    run = make(follower)
    observer = Reader(run, role=Role.OBSERVER)
    (following,) = follower.followings
    assert following.told == []
    first, second = Reader(run), Reader(run)
    assert following.told == [1, 2]
    observer.close()
    first.close()
    assert following.told == [1, 2, 1]
    second.close()
    assert (following.told[-1], following.closed) == (0, True)


def test_one_who_waits_for_the_end_is_no_subscriber(follower: FakeFollower) -> None:
    run = make(follower)
    run.when_ended(lambda: None)
    assert follower.followings[0].told == []
