"""The one reader of this gateway: everything it follows and its inbox, in one blocking XREAD on a connection of its own.

A stream is read from its oldest entry on with one cursor, first what is there, then what comes, so there is no seam
between history and live. Cursors outlive a lost connection. Never `$`, which would pass over what comes between two reads.

A read that waits has to hear of a new following: it is woken by a message to this gateway's own inbox, which it
reads anyway. (CLIENT UNBLOCK would be lost when it came between two reads, and many servers forbid it.)

Bounds: one answer holds at most `read_entries` entries, at least one of each stream, of at most about `entry_bytes`
or one batch each. Sinks are synchronous; nothing queues here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from gateway.runlog.shared.address import Address
from gateway.runlog.shared.backoff import Backoff
from gateway.runlog.shared.commands import Commands
from gateway.runlog.shared.following import START, Following
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.link import Link, LinkLost
from gateway.runlog.shared.options import SharedLogOptions

log = structlog.get_logger("gateway.runlog")

# How many records one look for expired runs asks for at once, and how often in a row one must be missing: after the server
# lost everything, owners need a moment to make them again.
CHECKED_AT_ONCE = 500
MISSES = 2
# What a cursor may be set to: one that the server doesn't understand would be refused with every read, for good.
ENTRY_ID = re.compile(rb"[0-9]+-[0-9]+")


class Reader:
    """Reads for all. `on_message(fields)` gets each message of the inbox; `wake()` puts one there that says nothing."""

    def __init__(
        self,
        address: Address,
        gateway_id: str,
        keys: Keys,
        options: SharedLogOptions,
        commands: Commands,
        on_message: Callable[[Sequence[bytes]], None],
        wake: Callable[[], None],
    ) -> None:
        # The last message that was read.
        self.inbox_cursor = START
        self._address = address
        self._name = f"gateway-{gateway_id}-reader"
        self._keys = keys
        self._options = options
        self._commands = commands
        self._on_message = on_message
        self._wake = wake
        self._inbox = keys.inbox(gateway_id).encode()
        self._followed: dict[bytes, Following] = {}
        # Whether the read that is under way will be answered soon for our sake.
        self._woken = False

    def __len__(self) -> int:
        return len(self._followed)

    def add(self, following: Following) -> None:
        """Read this run too, from the following's cursor on.

        Raises:
            ValueError: the run is followed already.
        """
        key = self._keys.log(following.record.id).encode()
        if key in self._followed:
            raise ValueError(f"run {following.record.id} is followed already; one following serves all readers of a gateway")
        self._followed[key] = following
        if not self._woken:
            self._woken = True
            self._wake()

    def remove(self, following: Following) -> None:
        """Read this run no more. What a read under way brings of it is dropped."""
        self._followed.pop(self._keys.log(following.record.id).encode(), None)

    async def run(self) -> None:
        """Read, and connect again whenever that is needed, until cancelled."""
        backoff = Backoff(self._options.backoff_min_s, self._options.backoff_max_s)
        while True:
            await self._commands.connected()
            try:
                await self._session()
            except LinkLost as exc:
                log.info("shared log's reader has lost its connection", reason=str(exc))
            await backoff.wait()

    async def check(self) -> None:
        """Look whether the followed runs are still known, and expire those that were missing `MISSES` times in a row.

        A stream that is gone is silent, as one is whose tool has nothing to say: the read can't tell.

        Raises:
            GatewayError: `log-unavailable`.
        """
        followings = list(self._followed.values())
        for start in range(0, len(followings), CHECKED_AT_ONCE):
            part = followings[start : start + CHECKED_AT_ONCE]
            found = await asyncio.gather(*(self._commands.ask("EXISTS", self._keys.run(each.record.id)) for each in part))
            for following, exists in zip(part, found, strict=True):
                following.misses = 0 if exists else following.misses + 1
                if following.misses >= MISSES and not following.closed:
                    following.expire()

    async def _session(self) -> None:
        """Use one connection for as long as it is of use."""
        options = self._options
        link = await Link.open(self._address, timeout_s=options.operation_timeout_s, name=self._name)
        try:
            while True:
                self._woken = False
                asked = dict(self._followed)
                count = max(1, options.read_entries // (len(asked) + 1))
                cursors = [self.inbox_cursor, *(following.cursor for following in asked.values())]
                head = ("XREAD", "COUNT", count, "BLOCK", max(1, int(options.block_s * 1000)), "STREAMS", self._inbox)
                # A server that stands still answers nothing, not even that there is nothing.
                reply = await link.ask(*head, *asked, *cursors, timeout_s=options.block_s + options.operation_timeout_s)
                for key, entries in reply or ():
                    if key not in asked and key != self._inbox:
                        raise LinkLost(f"an answer is for the stream {key!r}, which was not asked for")
                    self._deliver(asked.get(key), entries)
        finally:
            await link.close()

    def _deliver(self, following: Following | None, entries: Sequence[Any]) -> None:
        """Hand on what one stream brought; None: the inbox.

        Raises:
            LinkLost: what should be an entry's id is none.
        """
        for entry_id, fields in entries:
            if not ENTRY_ID.fullmatch(entry_id):
                raise LinkLost(f"an entry has the id {entry_id!r}")
            try:
                if following is None:
                    self.inbox_cursor = entry_id
                    self._on_message(fields)
                else:
                    following.deliver(entry_id, fields)
            except Exception:
                # One entry that can't be read must not end the reading of all others; a gap shows that it is missing.
                log.exception("an entry of the shared log can't be read", entry=entry_id, run=following and following.record.id)
