"""Where all runs can be found: registration, by id, and the list, newest first."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

from gateway.errors import FieldError, GatewayError
from gateway.runlog.shared import scripts
from gateway.runlog.shared.commands import Commands
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.records import FIELDS, Claim, RunPage, RunRecord, encode_record, read_record
from gateway.runlog.shared.writer import Writer

# How many index entries one look takes, and how many of those one page may look at.
LOOK = 100
LOOKS = 10
# Comes after every id: of runs of one time, the newest first, it is before them all.
_BEFORE_ALL = "~"


class Directory:
    """The records of all gateways' runs; those of this one are opened in the writer."""

    def __init__(self, gateway_id: str, keys: Keys, options: SharedLogOptions, commands: Commands, writer: Writer) -> None:
        self._gateway_id = gateway_id
        self._keys = keys
        self._options = options
        self._commands = commands
        self._writer = writer

    async def register(self, record: RunRecord, claim: Claim | None) -> RunRecord:
        """Make a run's record and its claim in one step: see SharedLog.register."""
        record = replace(record, owner=self._gateway_id)
        # Again where the run that has the claim goes between two steps.
        for _ in range(3):
            verdict, value = await self._register(record, claim)
            if verdict == b"new":
                record = replace(record, created_at_ms=int(value))
                self._writer.open(record, claim)
                return record
            if verdict == b"conflict":
                raise GatewayError("idempotency-conflict", "The idempotency key came with another request before; use a new key")
            found = await self.find(value.decode())
            if found is not None:
                return found
        raise GatewayError("log-unavailable", "The run that has the idempotency key can't be read", retry_after_s=1.0)

    async def _register(self, record: RunRecord, claim: Claim | None) -> tuple[bytes, Any]:
        keys, run_id = self._keys, record.id
        names = [keys.run(run_id), keys.owned(record.owner), keys.runs, keys.expiry, keys.gateways]
        if claim is not None:
            names.append(keys.claim(claim.key))
        open_ttl_ms, lease_ms = (math.ceil(seconds * 1000) for seconds in (self._options.open_ttl_s, self._options.lease_ttl_s))
        values = (run_id, record.owner, encode_record(record), open_ttl_ms, lease_ms, keys.run_prefix)
        fingerprint = "" if claim is None else claim.fingerprint
        answered = self._commands.request(*scripts.REGISTER.call, len(names), *names, *values, fingerprint)
        try:
            async with asyncio.timeout(2 * self._options.operation_timeout_s):
                verdict, value = await asyncio.shield(answered)
        except (asyncio.CancelledError, TimeoutError) as exc:
            # It may yet be carried out: then nobody would ever end the run.
            answered.add_done_callback(lambda future: self._disown(record, future))
            if isinstance(exc, TimeoutError):
                raise GatewayError("log-unavailable", "The shared log did not answer in time", retry_after_s=1.0) from exc
            raise
        return verdict, value

    def _disown(self, record: RunRecord, answered: asyncio.Future[Any]) -> None:
        # Where the connection was lost, the next greeting finds the run.
        if not answered.cancelled() and answered.exception() is None and answered.result()[0] == b"new":
            self._forget(record.id, record.owner)

    def withdraw(self, run_id: str) -> None:
        """Forget a run of ours that never began: see SharedLog.withdraw."""
        self._writer.close(run_id)
        self._forget(run_id, self._gateway_id)

    def _forget(self, run_id: str, owner: str) -> None:
        keys = self._keys
        names = (keys.run(run_id), keys.log(run_id), keys.owned(owner), keys.runs, keys.expiry)
        self._commands.tell(*scripts.DISOWN.call, 5, *names, run_id, owner)

    async def find(self, run_id: str) -> RunRecord | None:
        """Return a run's record, or None: see SharedLog.find."""
        return read_record(await self._commands.ask("HMGET", self._keys.run(run_id), *FIELDS))

    async def list(self, cursor: str | None, limit: int, state: str | None, tool: str | None, caller: str | None) -> RunPage:
        """Return a page of runs: see SharedLog.list."""
        place = None if cursor is None else _read_cursor(cursor)
        began = own = place
        found: list[RunRecord] = []
        offset = 0
        for _ in range(LOOKS):
            newest = "+inf" if place is None else str(place[0])
            reply = await self._commands.ask("ZREVRANGEBYSCORE", self._keys.runs, newest, "-inf", "WITHSCORES", "LIMIT", offset, LOOK)
            entries = [(int(float(score)), run_id.decode()) for run_id, score in zip(reply[::2], reply[1::2], strict=True)]
            ahead = [entry for entry in entries if place is None or entry < place]
            records = await asyncio.gather(*(self.find(run_id) for _, run_id in ahead))
            for entry, record in zip(ahead, records, strict=True):
                place = entry
                if record is None or caller not in (None, record.caller):
                    continue
                own = entry
                if state in (None, record.state) and tool in (None, record.tool):
                    found.append(record)
                    if len(found) == limit:
                        return RunPage(found, _cursor(place))
            if len(entries) < LOOK:
                return RunPage(found, None)
            # More runs of one millisecond than one look takes: all that came was behind us.
            offset = 0 if ahead else offset + LOOK
        return RunPage(found, None if place is None else _cursor(_told(place, own, began)))


def _told(place: tuple[int, str], own: tuple[int, str] | None, began: tuple[int, str] | None) -> tuple[int, str]:
    """Return the place that a page which gave up looking says: not the last one, which may be another caller's run.

    It is that of the caller's own last run, or before all others of the millisecond, whose rest is looked at again.
    """
    told = own if own is not None and own[0] == place[0] else (place[0], _BEFORE_ALL)
    # Never where the page began: a millisecond with more runs than a page looks at would be looked at for ever.
    return place if told == began else told


def _cursor(place: tuple[int, str]) -> str:
    return f"{place[0]}-{place[1]}"


def _read_cursor(text: str) -> tuple[int, str]:
    created, separator, run_id = text.partition("-")
    if not separator or not created.isdecimal() or len(text) > 100:
        detail = f"{text[:40]!r} is no cursor; use the one that came with the page before"
        raise GatewayError("invalid-option", detail, errors=[FieldError("cursor", "allowed: the cursor of the page before")])
    return int(created), run_id
