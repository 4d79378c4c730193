"""Whose a run is, as the log keeps it, and tickets that are used once among all gateways."""

from __future__ import annotations

import json

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


async def test_a_ticket_is_used_once_among_all_gateways(shared_valkey: Valkey, gateways: Gateways) -> None:
    one, other = await gateways(shared_valkey), await gateways(shared_valkey)
    assert [await gateway.log.use_ticket("T", 60) for gateway in (one, other, one)] == [True, False, False]
    assert await other.log.use_ticket("U", 60)
