from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Code, GatewayError, ToolFailed
from gateway.events import ChunkAttributes, Chunks, Ended, Outcome, Status, Timing
from gateway.runlog.shared.records import Claim, RunRecord
from tests.conftest import until, within
from tests.runlog.shared.conftest import Gateways, Seen, Valkey, batch, new_id, ok


async def test_a_follower_on_another_gateway_sees_what_was_recorded_before_and_after_it_came(
    shared_valkey: Valkey, gateways: Gateways
) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    run = await owner.run("r_a")
    run.status(Status("queued", {"position": 1}))
    run.appended(batch(1, b"1", b"2"))
    seen = await other.follow("r_a")
    await seen.has(2)
    final = ChunkAttributes(is_final=True, metadata={"k": "v"}, raw=b"\xff", chunk_id="c-3")
    run.status(Status("running", {"worker": "w"}))
    run.appended(batch(3, b'{"a":\n1}', attributes={3: final}))
    error = ToolFailed(Code.NOT_FOUND, "gone", error_type="KeyError", details={"n": 2**70})
    ended = Ended(Outcome.ERROR, 3, {"m": "x"}, Timing(1, None, 3), error)
    run.ended(ended)
    last = await seen.over()
    assert seen.payloads == {1: b"1", 2: b"2", 3: b'{"a":\n1}'}
    assert seen.gaps == []
    assert [event for event in seen.events if isinstance(event, Status)] == [
        Status("queued", {"position": 1}),
        Status("running", {"worker": "w"}),
    ]
    assert [event.attributes for event in seen.events if isinstance(event, Chunks)][-1] == {3: final}
    assert (last.outcome, last.chunks, last.metadata, last.timing) == (ended.outcome, 3, {"m": "x"}, Timing(1, None, 3))
    assert last.error is not None
    assert last.error.document() == error.document()


async def test_who_follows_an_ended_run_sees_all_of_it(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    run = await owner.run("r_a")
    run.appended(batch(1, b"1"))
    run.ended(ok(1))
    await until(lambda: len(owner.log._writer) == 0)
    seen = await other.follow("r_a")
    assert (await seen.over(), seen.payloads) == (ok(1), {1: b"1"})


async def test_a_read_that_waits_hears_of_a_new_following(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey, block_s=100)
    run = await owner.run("r_a")
    run.ended(ok(0))
    with shared_valkey.client() as client:
        await until(
            lambda: any(c["name"] == f"gateway-{other.log.gateway_id}-reader" and c["cmd"] == "xread" for c in client.client_list())
        )
    assert await (await other.follow("r_a")).over() == ok(0)


async def test_what_waits_together_becomes_one_entry(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey)
    run = await owner.run("r_a")
    for number in range(1, 6):
        run.appended(batch(number, b"x"))
    run.ended(ok(5))
    seen = await owner.follow("r_a")
    await seen.over()
    assert [type(event) for event in seen.events] == [Chunks, Ended]


async def test_a_run_is_found_with_its_state_and_its_end(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    run = await owner.run("r_a", tool="count", pool="p", session="s", policy="grace:30s", kind="unary", details={"n": 1})
    record = await other.log.find("r_a")
    assert record == RunRecord("r_a", "count", "p", "s", "grace:30s", "unary", {"n": 1}, owner.log.gateway_id, run.record.created_at_ms)
    assert record.created_at_ms > 1_700_000_000_000
    run.status(Status("running"))
    run.appended(batch(1, b"1", b"2"))
    run.ended(ok(2))
    await until(lambda: len(owner.log._writer) == 0)
    record = await other.log.find("r_a")
    assert record is not None
    assert (record.state, record.chunks, record.ended) == ("ok", 2, ok(2))
    assert record.ended_at_ms is not None
    assert record.ended_at_ms >= record.created_at_ms
    assert await other.log.find("r_nobody") is None


async def test_following_an_unknown_run_is_refused(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey)
    with pytest.raises(GatewayError) as raised:
        await gateway.follow("r_nobody")
    assert raised.value.problem == "run-not-found"


async def test_a_closed_following_hears_nothing_and_its_place_is_free(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    run = await owner.run("r_a")
    run.appended(batch(1, b"1"))
    first = Seen()
    following = await other.log.follow("r_a", first)
    await first.has(1)
    with pytest.raises(ValueError, match="followed already"):
        await other.log.follow("r_a", Seen())
    following.close()
    following.close()
    second = await other.follow("r_a")
    run.appended(batch(2, b"2"))
    run.ended(ok(2))
    await second.over()
    assert (first.payloads, first.end, second.payloads) == ({1: b"1"}, None, {1: b"1", 2: b"2"})


async def test_a_sink_that_closes_in_the_middle_of_an_answer_hears_no_more(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    run = await owner.run("r_a")
    run.appended(batch(1, b"1"))
    run.status(Status("running"))
    run.appended(batch(2, b"2"))
    run.ended(ok(2))
    await until(lambda: len(owner.log._writer) == 0)

    class Once(Seen):
        def on_batch(self, batch: Chunks) -> None:
            super().on_batch(batch)
            following.close()

    seen = Once()
    following = await other.log.follow("r_a", seen)
    await seen.has(1)
    witness = await other.follow("r_a")
    await witness.over()
    assert (seen.payloads, seen.end) == ({1: b"1"}, None)


async def test_a_sink_that_raises_does_not_end_the_others(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    good, bad = await owner.run("r_good"), await owner.run("r_bad")

    class Broken(Seen):
        def on_batch(self, batch: Chunks) -> None:
            super().on_batch(batch)
            raise RuntimeError("broken sink")

    broken = Broken()
    await other.log.follow("r_bad", broken)
    seen = await other.follow("r_good")
    bad.appended(batch(1, b"1"))
    await broken.has(1)
    good.appended(batch(1, b"1"))
    good.ended(ok(1))
    bad.ended(ok(1))
    assert (await seen.over(), await broken.over()) == (ok(1), ok(1))


async def test_a_stream_is_bounded_in_bytes_and_its_reader_told_the_gap(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey, run_limit_bytes=3000, entry_bytes=1)
    run = await owner.run("r_a")
    for number in range(1, 11):
        run.appended(batch(number, bytes([48 + number]) * 1000))
        await until(lambda: run.idle)
    run.ended(ok(10))
    seen = await owner.follow("r_a")
    await seen.over()
    assert seen.gaps == [(1, 8)]
    assert sorted(seen.payloads) == [9, 10]


async def test_a_stream_is_bounded_in_entries(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey, run_limit_entries=3, entry_bytes=1)
    run = await owner.run("r_a")
    for number in range(1, 11):
        run.appended(batch(number, b"x"))
    run.ended(ok(10))
    seen = await owner.follow("r_a")
    await seen.over()
    assert (seen.gaps, sorted(seen.payloads)) == ([(1, 7)], [8, 9, 10])


async def test_every_key_has_a_time_to_live_or_an_owner_that_removes_it(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey, ttl_s=0.6)
    with shared_valkey.client() as client:
        run = (await gateway.run("r_a"), await gateway.log.register(RunRecord("r_b", "t"), Claim("k", "f")))[0]
        other = gateway.log.recorder("r_b")
        run.appended(batch(1, b"1"))
        await gateway.log.session_touch("s", {}, 100)
        await until(lambda: run.idle)
        keys = {key.decode().removeprefix(gateways.prefix): client.pttl(key) for key in client.keys(f"{gateways.prefix}*")}
        mortal = {key for key, ttl_ms in keys.items() if ttl_ms > 0}
        assert mortal - {f"inbox:{gateway.log.gateway_id}"} == {"run:{r_a}", "run:{r_a}:log", "run:{r_b}", "claim:k", "session:s"}
        assert keys.keys() - mortal == {"runs", "expiry", "gateways", "epoch", f"owned:{gateway.log.gateway_id}"}
        run.ended(ok(1))
        other.ended(ok(0))
        await within(gateway.log.session_end("s"))
        await until(lambda: not client.exists(f"{gateways.prefix}runs"))
        assert await gateway.log.find("r_a") is None
        assert await gateway.log.leave(5)
        await gateway.freeze()
        assert {key.decode() for key in client.keys(f"{gateways.prefix}*")} == {f"{gateways.prefix}epoch"}


async def test_an_open_runs_keys_are_renewed(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey, open_ttl_s=1.2)
    run = await gateway.run("r_a")
    run.appended(batch(1, b"1"))
    await until(lambda: run.idle)
    with shared_valkey.client() as client:
        key = f"{gateways.prefix}run:{{r_a}}:log"
        born = client.pexpiretime(key)
        await until(lambda: client.pexpiretime(key) > born + 1500)
    run.ended(ok(1))
    seen = await gateway.follow("r_a")
    assert (await seen.over(), seen.payloads) == (ok(1), {1: b"1"})


async def test_a_run_that_expired_ends_its_followers(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey)
    run = await gateway.run("r_a")
    run.appended(batch(1, b"1"))
    seen = await gateway.follow("r_a")
    await seen.has(1)
    with shared_valkey.client() as client:
        client.delete(*client.keys(f"{gateways.prefix}run:*"))
    ended = await seen.over()
    assert (ended.outcome, ended.chunks) == (Outcome.EXPIRED, 1)
    assert ended.error is not None
    assert ended.error.problem == "run-expired"


# idempotency


async def test_twenty_claims_at_once_make_one_run(shared_valkey: Valkey, gateways: Gateways) -> None:
    both = [await gateways(shared_valkey), await gateways(shared_valkey)]
    claim = Claim("key", "print")
    records = await asyncio.gather(*(both[number % 2].log.register(RunRecord(new_id(), "count"), claim) for number in range(20)))
    assert len({record.id for record in records}) == 1
    assert [len(gateway.log._writer) for gateway in both].count(1) == 1
    assert len((await both[0].log.list()).runs) == 1


async def test_a_claim_with_another_fingerprint_is_a_conflict(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey)
    await gateway.log.register(RunRecord("r_a", "count"), Claim("key", "print"))
    with pytest.raises(GatewayError) as raised:
        await gateway.log.register(RunRecord("r_b", "count"), Claim("key", "other"))
    assert (raised.value.problem, raised.value.http_status) == ("idempotency-conflict", 422)
    assert await gateway.log.find("r_b") is None


async def test_a_claim_lives_as_long_as_its_run(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey, ttl_s=0.2)
    await gateway.log.register(RunRecord("r_a", "count"), Claim("key", "print"))
    gateway.log.recorder("r_a").ended(ok(0))
    with shared_valkey.client() as client:
        await until(lambda: not client.exists(f"{gateways.prefix}claim:key"))
    again = await gateway.log.register(RunRecord("r_b", "count"), Claim("key", "other"))
    assert again.id == "r_b"


async def test_a_caller_who_is_cancelled_while_it_registers_leaves_no_run(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey)
    task = asyncio.create_task(gateway.log.register(RunRecord("r_a", "count"), Claim("key", "print")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    second = await gateway.log.register(RunRecord("r_b", "count"))
    assert [record.id for record in (await gateway.log.list()).runs] == [second.id]
    assert "r_a" not in gateway.log._writer


# the list


async def test_the_list_is_paged_newest_first_and_ends(shared_valkey: Valkey, gateways: Gateways) -> None:
    both = [await gateways(shared_valkey), await gateways(shared_valkey)]
    ids = [(await both[number % 2].run()).record.id for number in range(7)]
    listed: list[str] = []
    cursor = None
    for size in (3, 3, 1):
        page = await both[0].log.list(cursor, 3)
        assert len(page.runs) == size
        listed += [record.id for record in page.runs]
        cursor = page.cursor
    assert cursor is None
    records = {record.id: record.created_at_ms for record in (await both[0].log.list(limit=100)).runs}
    assert listed == sorted(ids, key=lambda run_id: (records[run_id], run_id), reverse=True)


async def test_the_list_is_filtered_and_its_search_bounded(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey)
    rare = await gateway.run("r_rare", tool="rare")
    rare.status(Status("running"))
    for _ in range(1050):
        await gateway.run(tool="common")
    page = await gateway.log.list(tool="rare")
    assert (list(page.runs), page.cursor is not None) == ([], True)
    page = await gateway.log.list(page.cursor, tool="rare", state="running")
    assert ([record.id for record in page.runs], page.cursor) == (["r_rare"], None)
    assert [len((await gateway.log.list(tool="rare", state=state, cursor=None)).runs) for state in ("queued",)] == [0]


async def test_many_runs_of_one_millisecond_are_all_listed(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey)
    ids = {(await gateway.run()).record.id for _ in range(250)}
    with shared_valkey.client() as client:
        client.zadd(f"{gateways.prefix}runs", dict.fromkeys(ids, 1000))
    listed: list[str] = []
    cursor = None
    while True:
        page = await gateway.log.list(cursor, 20)
        listed += [record.id for record in page.runs]
        cursor = page.cursor
        if cursor is None:
            break
    assert listed == sorted(ids, reverse=True)


async def test_a_wrong_cursor_is_refused(shared_valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(shared_valkey)
    for cursor in ("x", "-", "1.5-r", "a-b"):
        with pytest.raises(GatewayError, match="no cursor") as raised:
            await gateway.log.list(cursor)
        assert raised.value.http_status == 400


# commands


async def test_a_cancel_reaches_the_owner_from_anywhere(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    run = await owner.run("r_a")
    assert await other.log.cancel("r_a")
    await until(lambda: owner.local.cancelled == ["r_a"])
    assert await owner.log.cancel("r_a")
    assert owner.local.cancelled == ["r_a", "r_a"]
    run.ended(ok(0))
    await until(lambda: len(owner.log._writer) == 0)
    assert (await other.log.cancel("r_a"), await other.log.cancel("r_nobody")) == (False, False)


async def test_the_owner_hears_how_many_read_elsewhere(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, second, third = [await gateways(shared_valkey) for _ in range(3)]
    await owner.run("r_a")
    followings = [await gateway.log.follow("r_a", Seen()) for gateway in (second, third)]
    followings[0].readers(2)
    await until(lambda: owner.local.readers[-1:] == [("r_a", 2)])
    followings[1].readers(1)
    await until(lambda: owner.local.readers[-1:] == [("r_a", 3)])
    followings[0].readers(1)
    await until(lambda: owner.local.readers[-1:] == [("r_a", 2)])
    followings[0].close()
    followings[1].close()
    await until(lambda: owner.local.readers[-1:] == [("r_a", 0)])


async def test_a_lost_count_is_made_good(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    await owner.run("r_a")
    following = await other.log.follow("r_a", Seen())
    following.readers(3)
    await until(lambda: owner.local.readers == [("r_a", 3)])
    owner.log._inbox.remote_readers.replace(other.log.gateway_id, {})
    assert owner.local.readers == [("r_a", 3), ("r_a", 0)]
    await until(lambda: owner.local.readers == [("r_a", 3), ("r_a", 0), ("r_a", 3)])


# sessions


async def test_sessions_are_shared(shared_valkey: Valkey, gateways: Gateways) -> None:
    one, two = await gateways(shared_valkey), await gateways(shared_valkey)
    made = await one.log.session_touch("s", {"k": "v"}, 100)
    assert (made.id, made.metadata, made.homes) == ("s", {"k": "v"}, {})
    used = await two.log.session_touch("s", {"k": "other"}, 100)
    assert (used.created_at_ms, used.metadata) == (made.created_at_ms, {"k": "v"})
    assert used.used_at_ms >= made.used_at_ms
    assert await two.log.session_get("s") == used
    assert [await one.log.session_end("s"), await two.log.session_end("s")] == [True, False]
    assert await two.log.session_get("s") is None


async def test_a_session_has_one_home_in_a_pool_while_its_gateway_lives(shared_valkey: Valkey, gateways: Gateways) -> None:
    one, two = await gateways(shared_valkey), await gateways(shared_valkey)
    home = await one.log.session_settle("s", "p", "w-1", 100)
    assert (home.gateway, home.worker) == (one.log.gateway_id, "w-1")
    assert await two.log.session_settle("s", "p", "w-2", 100) == home
    elsewhere = await two.log.session_settle("s", "q", "w-3", 100)
    session = await one.log.session_get("s")
    assert session is not None
    assert session.homes == {"p": home, "q": elsewhere}
    moved = await two.log.session_settle("s", "p", "w-2", 100, instead_of=home)
    assert moved.worker == "w-2"
    await two.freeze()
    again = moved
    async with asyncio.timeout(10):
        while again == moved:
            again = await one.log.session_settle("s", "p", "w-1", 100)
    assert again == home
