"""Whose a run is, as the log keeps it, and tickets that are used once among all gateways."""

from __future__ import annotations

import json

import pytest

from gateway.runlog.shared import directory
from gateway.runlog.shared.records import RunRecord, encode_record, read_record
from tests.runlog.shared.conftest import Gateways, Valkey


def test_a_record_says_whose_run_it_is_and_by_which_ticket() -> None:
    record = RunRecord("r", "t", caller="key:ada", ticket="T")
    read = read_record([encode_record(record), b"owner", b"1", b"queued", b"0", None, None])
    assert read is not None
    assert (read.caller, read.ticket) == ("key:ada", "T")


def test_a_record_of_before_there_were_callers_is_everybodys_and_one_of_everybodys_is_as_it_was() -> None:
    text = encode_record(RunRecord("r", "t"))
    assert {"caller", "ticket"} & set(json.loads(text)) == set()
    read = read_record([text, b"owner", b"1", b"queued", b"0", None, None])
    assert read is not None
    assert (read.caller, read.ticket) == ("anonymous", None)


async def test_a_list_may_be_of_one_caller(shared_valkey: Valkey, gateways: Gateways) -> None:
    owner, other = await gateways(shared_valkey), await gateways(shared_valkey)
    for run, caller in (("r_a", "key:ada"), ("r_b", "key:bob"), ("r_c", "key:ada")):
        await owner.run(run, caller=caller)
    assert sorted(record.id for record in (await other.log.list(caller="key:ada")).runs) == ["r_a", "r_c"]
    assert len((await other.log.list()).runs) == 3


@pytest.mark.parametrize("milliseconds", [20, 1000])
async def test_a_list_names_no_run_of_another_caller_even_where_it_gave_up(
    shared_valkey: Valkey, gateways: Gateways, monkeypatch: pytest.MonkeyPatch, milliseconds: int
) -> None:
    monkeypatch.setattr(directory, "LOOK", 3)
    monkeypatch.setattr(directory, "LOOKS", 4)
    gateway = await gateways(shared_valkey)
    hers = [f"r_{number:03}" for number in range(0, 100, 9)]
    names = {f"r_{number:03}": 5000 + number % milliseconds for number in range(100)}
    for run in names:
        await gateway.run(run, caller="key:ada" if run in hers else "key:bob")
    with shared_valkey.client() as client:
        client.zadd(f"{gateways.prefix}runs", names)
    listed: list[str] = []
    cursors: list[str] = []
    while not cursors or cursors[-1]:
        page = await gateway.log.list(cursors[-1] if cursors else None, 2, caller="key:ada")
        listed += [record.id for record in page.runs]
        cursors.append(page.cursor or "")
        assert len(set(cursors)) == len(cursors)
    assert listed == sorted(hers, key=lambda run: (names[run], run), reverse=True)
    assert {cursor.partition("-")[2] for cursor in cursors} <= {*hers, "", "~"}


async def test_a_ticket_is_used_once_among_all_gateways(shared_valkey: Valkey, gateways: Gateways) -> None:
    one, other = await gateways(shared_valkey), await gateways(shared_valkey)
    assert [await gateway.log.use_ticket("T", 60) for gateway in (one, other, one)] == [True, False, False]
    assert await other.log.use_ticket("U", 60)
