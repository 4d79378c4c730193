"""Everything that can die dies: gateways, the server, the connection; the log says what is lost and goes on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.events import Ended, Outcome, Status
from gateway.runlog.shared.log import SharedLog
from gateway.runlog.shared.records import Claim, RunRecord
from tests.conftest import until, within
from tests.e2e.proxy import Way, proxied
from tests.runlog.shared.conftest import Gateways, Local, Seen, Valkey, batch, ok


def lost(ended: Ended) -> bool:
    return ended.outcome is Outcome.ERROR and ended.error is not None and ended.error.problem == "owner-lost"


# a gateway dies


async def test_the_runs_of_a_dead_gateway_end_everywhere_after_all_that_was_recorded(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, second, third = [await gateways(shared_valkey) for _ in range(3)]
    run = await owner.run("r_a")
    done = await owner.run("r_done")
    done.ended(ok(0))
    run.appended(batch(1, b"1", b"2"))
    seen = [await gateway.follow("r_a") for gateway in (second, third)]
    await seen[0].has(2)
    await until(lambda: "r_done" not in owner.log._writer)
    await owner.freeze()
    ends = [await each.over() for each in seen]
    assert all(lost(end) for end in ends)
    assert [(end.chunks, end.error and end.error.http_status, end.error and end.error.code.name) for end in ends] == [
        (2, 503, "UNAVAILABLE")
    ] * 2
    assert [each.payloads for each in seen] == [{1: b"1", 2: b"2"}] * 2
    record = await second.log.find("r_a")
    assert record is not None
    assert (record.state, record.ended is not None and lost(record.ended), record.owner) == ("error", True, owner.log.gateway_id)
    other = await second.log.find("r_done")
    assert other is not None
    assert other.ended == ok(0)
    with shared_valkey.client() as client:
        assert len(client.xrange(f"{gateways.prefix}run:{{r_a}}:log")) == 2
        await until(lambda: not client.zscore(f"{gateways.prefix}gateways", owner.log.gateway_id))


async def test_a_gateway_whose_lease_lapsed_for_a_moment_is_not_called_dead(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey, lease_interval_s=1000)
    other = await gateways(shared_valkey, sweep_interval_s=1000, confirm_s=0.3)
    await owner.run("r_a")
    membership, name = other.log._membership, owner.log.gateway_id
    with shared_valkey.client() as client:
        client.zadd(f"{gateways.prefix}gateways", {name: 1})
        assert await membership.sweep() == []
        await owner.log._renew()
        assert await membership.sweep() == []
        client.zadd(f"{gateways.prefix}gateways", {name: 1})
        assert await membership.sweep() == []
        first = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > first + 0.3)
        record = await other.log.find("r_a")
        assert record is not None
        assert record.ended is None
        # What was seen before a lost connection doesn't count.
        changes: list[bool] = []
        other.log.listen(changes.append)
        (reader,) = (each for each in client.client_list() if each["name"] == f"gateway-{other.log.gateway_id}")
        client.client_kill_filter(_id=reader["id"])
        await until(lambda: changes == [False, True])
        assert await membership.sweep() == []
        first = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > first + 0.3)
        assert await membership.sweep() == [name]
    record = await other.log.find("r_a")
    assert record is not None
    assert record.ended is not None


async def test_a_gateway_that_was_away_hears_of_its_lost_runs_though_they_say_nothing(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey, lease_interval_s=1000)
    other = await gateways(shared_valkey)
    await owner.run("r_silent")
    ended = await (await other.follow("r_silent")).over()
    assert lost(ended)
    assert owner.local.fenced == []
    await owner.log._renew()
    await until(lambda: owner.local.fenced == ["r_silent"])


async def test_a_gateway_that_was_late_to_renew_keeps_the_runs_that_nobody_ended(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey, lease_interval_s=1000, lease_ttl_s=0.2)
    other = await gateways(shared_valkey, sweep_interval_s=1000)
    run = await owner.run("r_kept")
    seen = await other.follow("r_kept")
    with shared_valkey.client() as client:
        lease = client.zscore(f"{gateways.prefix}gateways", owner.log.gateway_id)
        await until(lambda: client.time()[0] * 1000 + client.time()[1] / 1000 > lease + 10)
    await owner.log._renew()
    run.appended(batch(1, b"1"))
    run.ended(ok(1))
    assert await seen.over() == ok(1)
    assert (seen.payloads, owner.local.fenced) == ({1: b"1"}, [])


async def test_a_dead_gateways_many_runs_end_in_one_sweep(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    for _ in range(250):
        await owner.run()
    await owner.freeze()
    with shared_valkey.client() as client:
        await until(lambda: not client.zscore(f"{gateways.prefix}gateways", owner.log.gateway_id))
    runs = (await other.log.list(limit=300)).runs
    assert len(runs) == 250
    assert all(run.ended is not None and lost(run.ended) for run in runs)


async def test_a_dead_gateways_readers_are_forgotten(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    await owner.run("r_a")
    following = await other.log.follow("r_a", Seen())
    following.readers(2)
    await until(lambda: owner.local.readers == [("r_a", 2)])
    await other.freeze()
    await until(lambda: owner.local.readers == [("r_a", 2), ("r_a", 0)])


@asynccontextmanager
async def other_process(valkey: Valkey, prefix: str) -> AsyncIterator[asyncio.subprocess.Process]:
    script = os.path.join(os.path.dirname(__file__), "gateway_process.py")
    process = await asyncio.create_subprocess_exec(sys.executable, script, valkey.url, prefix, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await within(process.stdout.readline()) == b"recorded\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_killed_process_runs_end(shared_valkey: Valkey, gateways: Gateways) -> None:
    here = await gateways(shared_valkey)
    async with other_process(shared_valkey, gateways.prefix) as process:
        seen = await here.follow("r_theirs")
        await seen.has(20)
        process.kill()
        ended = await seen.over()
    assert lost(ended)
    assert seen.payloads == {number: b"%d" % number for number in range(1, ended.chunks + 1)}
    assert seen.gaps == []
    again = await here.log.register(RunRecord("r_b", "count"), Claim("key", "print"))
    assert again.id == "r_theirs"


async def test_a_process_that_stood_still_is_fenced_when_it_comes_back(shared_valkey: Valkey, gateways: Gateways) -> None:
    here = await gateways(shared_valkey)
    async with other_process(shared_valkey, gateways.prefix) as process:
        seen = await here.follow("r_theirs")
        process.send_signal(signal.SIGSTOP)
        ended = await seen.over()
        assert lost(ended)
        with shared_valkey.client() as client:
            entries = client.xlen(f"{gateways.prefix}run:{{r_theirs}}:log")
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            assert await within(process.stdout.readline()) == b"fenced r_theirs\n"
            assert client.xlen(f"{gateways.prefix}run:{{r_theirs}}:log") == entries
    record = await here.log.find("r_theirs")
    assert record is not None
    assert record.chunks == ended.chunks


async def test_a_fenced_run_is_told_once_and_its_recorder_is_silent(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey)
    run = await owner.run("r_a")
    with shared_valkey.client() as client:
        client.hset(f"{gateways.prefix}run:{{r_a}}", "owner", "another")
    run.appended(batch(1, b"1"))
    await until(lambda: owner.local.fenced)
    run.appended(batch(2, b"2"))
    run.status(Status("running"))
    run.ended(ok(2))
    await owner.log.find("r_a")
    assert owner.local.fenced == ["r_a"]
    await until(lambda: owner.log.queued_bytes == 0)
    with shared_valkey.client() as client:
        assert not client.exists(f"{gateways.prefix}run:{{r_a}}:log")


async def test_a_run_that_was_ended_and_forgotten_while_its_owner_was_away_is_fenced(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(shared_valkey)
    run = await owner.run("r_a")
    with shared_valkey.client() as client:
        client.delete(f"{gateways.prefix}run:{{r_a}}")
    run.ended(ok(0))
    await until(lambda: owner.local.fenced == ["r_a"])
    assert await owner.log.find("r_a") is None


async def test_a_graceful_leave_writes_everything_and_gives_the_lease_back(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    run = await owner.run("r_a")
    seen = await other.follow("r_a")
    assert not await owner.log.leave(0.05)
    leaving = asyncio.create_task(owner.log.leave(10))
    run.appended(batch(1, b"1"))
    run.ended(ok(1))
    assert await within(leaving)
    await owner.freeze()
    assert (await seen.over(), seen.payloads) == (ok(1), {1: b"1"})
    with shared_valkey.client() as client:
        assert not client.exists(f"{gateways.prefix}owned:{owner.log.gateway_id}", f"{gateways.prefix}inbox:{owner.log.gateway_id}")


async def test_a_run_that_nobody_here_knows_ends_when_the_gateway_connects_again(valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(valkey), await gateways(valkey)
    await owner.run("r_a")
    seen = await other.follow("r_a")
    # As after a registration whose answer was lost, or an end that a snapshot doesn't have.
    del owner.log._writer._recorders["r_a"]
    with valkey.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert lost(await seen.over())


# the server dies


async def test_a_killed_connection_loses_and_doubles_nothing(valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(valkey, entry_bytes=200), await gateways(valkey)
    run = await owner.run("r_a")
    seen = await other.follow("r_a")
    with valkey.client() as client:
        for number in range(1, 601):
            run.appended(batch(number, b"%d" % number))
            if number % 100 == 50:
                client.client_kill_filter(_type="normal", skipme=True)
            await asyncio.sleep(0)
        run.ended(ok(600))
        await seen.over()
        ids = [entry_id for entry_id, _ in client.xrange(f"{gateways.prefix}run:{{r_a}}:log")]
    assert seen.payloads == {number: b"%d" % number for number in range(1, 601)}
    assert seen.gaps == []
    assert ids == [b"%d-0" % number for number in range(1, len(ids) + 1)]


async def test_without_the_server_operations_are_refused_at_once_and_it_comes_back_by_itself(valkey: Valkey, gateways: Gateways) -> None:
    gateway = await gateways(valkey)
    changes: list[bool] = []
    gateway.log.listen(changes.append)
    valkey.kill()
    await until(lambda: not gateway.log.available)
    for operation in (
        gateway.log.register(RunRecord("r_a", "t")),
        gateway.log.find("r_a"),
        gateway.log.list(),
        gateway.log.cancel("r_a"),
        gateway.log.follow("r_a", Seen()),
        gateway.log.session_get("s"),
    ):
        with pytest.raises(GatewayError) as raised:
            await operation
        assert (raised.value.problem, raised.value.http_status) == ("log-unavailable", 503)
        assert raised.value.retry_after_s is not None
        assert f"127.0.0.1:{valkey.port}" in raised.value.detail or "lost" in raised.value.detail
    valkey.restart()
    await within(gateway.log.connected())
    assert changes == [False, True]
    assert (await gateway.run("r_a")).record.id == "r_a"


async def test_what_was_recorded_while_the_server_was_away_arrives_later(valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(valkey), await gateways(valkey)
    record = await owner.log.register(RunRecord("r_a", "count"), Claim("key", "print"))
    run = owner.log.recorder("r_a")
    quiet = await owner.run("r_quiet")
    run.status(Status("running"))
    run.appended(batch(1, b"1"))
    seen, silent = await other.follow("r_a"), await other.follow("r_quiet")
    await seen.has(1)
    await until(lambda: run.idle)
    valkey.kill()
    await until(lambda: not owner.log.available and not other.log.available)
    run.appended(batch(2, b"2"))
    valkey.restart()
    # Memory is gone, and the owner makes its runs again: also the one that has nothing to say.
    await seen.has(2)
    run.appended(batch(3, b"3"))
    await seen.has(3)
    await within(other.log.connected())
    late = await other.log.find("r_quiet")
    assert late is not None
    assert (late.created_at_ms, late.state) == (quiet.record.created_at_ms, "queued")
    again = await other.log.find("r_a")
    assert again is not None
    assert (again.created_at_ms, again.state) == (record.created_at_ms, "running")
    assert (await other.log.register(RunRecord("r_b", "count"), Claim("key", "print"))).id == "r_a"
    run.ended(ok(3))
    quiet.ended(ok(0))
    assert (await seen.over(), await silent.over()) == (ok(3), ok(0))
    assert (seen.payloads, seen.gaps) == ({1: b"1", 2: b"2", 3: b"3"}, [])
    third = await gateways(valkey)
    newcomer = await third.follow("r_a")
    await newcomer.over()
    assert (newcomer.gaps, newcomer.payloads) == ([(1, 1)], {2: b"2", 3: b"3"})
    assert (owner.local.fenced, other.local.fenced) == ([], [])


async def test_a_server_that_comes_back_with_an_old_snapshot(valkey: Valkey, gateways: Gateways, tmp_path: Path) -> None:
    owner, other = await gateways(valkey), await gateways(valkey)
    live, over, new = await owner.run("r_live"), await owner.run("r_over"), "r_new"
    live.appended(batch(1, b"1"))
    await until(lambda: live.idle)
    valkey.save(tmp_path)
    # The snapshot doesn't know of these: a chunk, an end, a whole run.
    live.appended(batch(2, b"2"))
    over.ended(ok(0))
    fresh = await owner.run(new)
    fresh.appended(batch(1, b"1"))
    await until(lambda: live.idle and fresh.idle and "r_over" not in owner.log._writer)
    seen = await other.follow("r_live")
    await seen.has(2)
    valkey.restart_from(tmp_path)
    await until(lambda: not owner.log.available)
    live.appended(batch(3, b"3"))
    live.ended(ok(3))
    fresh.ended(ok(1))
    assert await seen.over() == ok(3)
    assert (seen.payloads, seen.gaps) == ({1: b"1", 2: b"2", 3: b"3"}, [])
    await within(other.log.connected())
    late, forgotten, again = [await other.follow(run_id) for run_id in ("r_live", new, "r_over")]
    assert [await late.over(), await forgotten.over()] == [ok(3), ok(1)]
    assert (late.payloads, late.gaps, forgotten.gaps) == ({1: b"1", 3: b"3"}, [(2, 2)], [(1, 1)])
    assert lost(await again.over())
    assert owner.local.fenced == []


async def test_runs_that_the_server_forgot_for_good_expire_for_their_followers(valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(valkey), await gateways(valkey)
    run = await owner.run("r_a")
    run.appended(batch(1, b"1"))
    seen = await other.follow("r_a")
    await seen.has(1)
    await owner.freeze()
    valkey.restart()
    ended = await seen.over()
    assert (ended.outcome, ended.chunks) == (Outcome.EXPIRED, 1)


async def test_a_server_that_stood_still_loses_nothing_and_nobody_is_called_dead(valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(valkey), await gateways(valkey)
    run = await owner.run("r_a")
    run.appended(batch(1, b"1"))
    seen = await other.follow("r_a")
    await seen.has(1)
    started = asyncio.get_running_loop().time()
    async with valkey.paused():
        run.appended(batch(2, b"2"))
        await until(lambda: not owner.log.available and not other.log.available)
        with pytest.raises(GatewayError):
            await owner.log.find("r_a")
        run.appended(batch(3, b"3"))
        # Longer than any lease.
        await until(lambda: asyncio.get_running_loop().time() > started + owner.log.options.lease_ttl_s + 0.5)
    await seen.has(3)
    await within(owner.log.connected())
    renewed = asyncio.get_running_loop().time()
    await until(lambda: asyncio.get_running_loop().time() > renewed + 1)
    run.ended(ok(3))
    assert await seen.over() == ok(3)
    assert (seen.payloads, seen.gaps, owner.local.fenced) == ({1: b"1", 2: b"2", 3: b"3"}, [], [])


async def test_a_full_queue_drops_the_oldest_of_the_fullest_run_and_its_readers_see_a_gap(valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(valkey, queue_limit_bytes=20_000, entry_bytes=1), await gateways(valkey)
    loud, quiet = await owner.run("r_loud"), await owner.run("r_quiet")
    loud.appended(batch(1, b"1"))
    seen, calm = await other.follow("r_loud"), await other.follow("r_quiet")
    await seen.has(1)
    async with valkey.paused():
        quiet.appended(batch(1, b"q"))
        await until(lambda: not owner.log.available)
        for number in range(2, 102):
            loud.appended(batch(number, b"x" * 1000))
            assert owner.log.queued_bytes <= 20_000
        loud.ended(ok(101))
        quiet.ended(ok(1))
    assert (await seen.over(), await calm.over()) == (ok(101), ok(1))
    assert calm.payloads == {1: b"q"}
    assert len(seen.gaps) == 1
    first, last = seen.gaps[0]
    assert sorted(seen.payloads) == [*range(1, first), *range(last + 1, 102)]
    assert first == 2
    assert len(seen.payloads) >= 10
    await until(lambda: owner.log.queued_bytes == 0)


async def test_an_emptied_server_is_noticed_and_runs_go_on(valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(valkey), await gateways(valkey)
    run = await owner.run("r_a")
    run.appended(batch(1, b"1"))
    seen = await other.follow("r_a")
    await seen.has(1)
    with valkey.client() as client:
        client.flushall()
        await until(lambda: client.zscore(f"{gateways.prefix}gateways", owner.log.gateway_id))
    run.appended(batch(2, b"2"))
    run.ended(ok(2))
    assert (await seen.over(), seen.payloads, owner.local.fenced) == (ok(2), {1: b"1", 2: b"2"}, [])


async def test_a_batch_that_finds_the_server_emptied_makes_its_record_again(valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(valkey, lease_interval_s=1000, sweep_interval_s=1000)
    run, quiet = await owner.run("r_a"), await owner.run("r_quiet")
    with valkey.client() as client:
        client.flushall()
    run.appended(batch(1, b"1"))
    await until(lambda: run.idle)
    quiet.ended(ok(0))
    run.ended(ok(1))
    seen, silent = await owner.follow("r_a"), Seen()
    assert (await seen.over(), seen.payloads, owner.local.fenced) == (ok(1), {1: b"1"}, [])
    await until(lambda: len(owner.log._writer) == 0)
    await owner.log.follow("r_quiet", silent)
    assert await silent.over() == ok(0)


# what can't be had


async def test_a_wrong_password_says_so_and_nothing_secret(valkey: Valkey, gateways: Gateways) -> None:
    with valkey.client() as client:
        client.config_set("requirepass", "right")
    gateway = gateways.unconnected(f"valkey://:wrong@127.0.0.1:{valkey.port}")
    with pytest.raises(GatewayError) as raised:
        await gateway.log.probe()
    assert raised.value.problem == "log-unavailable"
    assert f"valkey://127.0.0.1:{valkey.port} refuses the user or the password" in raised.value.detail
    with pytest.raises(GatewayError, match="can't be used") as later:
        await gateway.log.find("r_a")
    assert "wrong@" not in raised.value.detail + later.value.detail
    right = gateways.unconnected(f"valkey://:right@127.0.0.1:{valkey.port}")
    await right.log.probe()
    await within(right.log.connected())


async def test_an_address_where_nobody_listens_says_so(gateways: Gateways) -> None:
    gateway = gateways.unconnected("redis://127.0.0.1:1")
    with pytest.raises(GatewayError, match=r"redis://127\.0\.0\.1:1 can't be reached"):
        await gateway.log.probe()


def test_a_bad_url_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="allowed: redis://"):
        SharedLog("memory://", "g", Local())


async def test_a_server_without_memory_is_unavailable_and_comes_back(valkey: Valkey, gateways: Gateways) -> None:
    owner = await gateways(valkey)
    run = await owner.run("r_a")
    with valkey.client() as client:
        client.config_set("maxmemory", "1")
        run.appended(batch(1, b"1"))
        await until(lambda: not owner.log.available)
        client.config_set("maxmemory", "0")
    run.ended(ok(1))
    seen = Seen()
    await within(owner.log.connected())
    await owner.log.follow("r_a", seen)
    assert (await seen.over(), seen.payloads) == (ok(1), {1: b"1"})


# answers that make no sense: a network, or a server, that changes what it passes on


class Nonsense(Way):
    """While `on`, every value of an answer begins with a byte that no UTF-8 has; lengths are right. `count`: how many so far."""

    on = False
    count = 0

    def pieces(self, data: bytes, offset: int) -> list[bytes]:
        if self.on:
            data, count = re.subn(rb"(\$[1-9][0-9]*\r\n)[^\r\n]", b"\\1\xff", data)
            self.count += count
        return [data]


async def test_answers_that_make_no_sense_end_nothing_and_it_comes_back_by_itself(valkey: Valkey, gateways: Gateways) -> None:
    async with proxied(valkey.port) as proxy:
        way = proxy.down = Nonsense()
        gateway = gateways.unconnected(f"valkey://127.0.0.1:{proxy.port}")
        await within(gateway.log.connected())
        owner = await gateways(valkey)
        run, seen = await owner.run("r_a"), await gateway.follow("r_a")
        run.appended(batch(1, b"1"))
        await seen.has(1)
        way.on = True
        # The lease, the sweep, what it follows and its inbox, on the connections that it has.
        run.appended(batch(2, b"2"))
        assert not await owner.log.cancel("r_unknown")
        await until(lambda: way.count > 20)
        # And the greeting, on new ones.
        proxy.cut()
        await until(lambda: not gateway.log.available)
        known = way.count
        await until(lambda: way.count > known + 20)
        way.on = False
        await within(gateway.log.connected())
        run.appended(batch(3, b"3"))
        run.ended(ok(3))
        assert await seen.over() == ok(3)
        # Where an entry was changed beyond reading, its chunks are a gap; what came later is whole.
        assert (seen.payloads[1], seen.payloads[3], 2 in seen.payloads or seen.gaps == [(2, 2)]) == (b"1", b"3", True)
        await gateway.run("r_b")
        assert await owner.log.cancel("r_b")
        await until(lambda: gateway.local.cancelled == ["r_b"])
