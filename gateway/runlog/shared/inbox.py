"""What gateways tell each other: cancel this run of yours, I have so many readers for it.

Messages go to the owner's inbox, a stream bounded in length and time. A cancel is acknowledged by the run's end. Counts
of readers are told when they change, and all of them anew now and then, so a lost message is made good; a gateway whose
lease is gone has no readers any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from gateway.runlog.shared import scripts
from gateway.runlog.shared.commands import Commands
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.options import SharedLogOptions

# A message: its kind, who sent it, and its content.
KIND, FROM, CONTENT = b"kind", b"from", b"content"
WAKE, CANCEL, READERS, ALL_READERS = b"wake", b"cancel", b"readers", b"all-readers"
# For how many rounds an owner is told that there are no readers for its runs any more.
EMPTY_ROUNDS = 3


class LocalRuns(Protocol):
    """The runs of this gateway, as other gateways' news reach them; sync, from the log's tasks; nothing may raise."""

    def on_cancel(self, run_id: str) -> None:
        """Somebody asks to cancel this run; it may have ended already."""

    def on_remote_readers(self, run_id: str, total: int) -> None:
        """So many subscribers on other gateways read this open run now."""

    def on_fenced(self, run_id: str) -> None:
        """The log holds this run as ended, or lost: end it here, its record is closed."""


class RemoteReaders:
    """How many readers other gateways have for our runs. `on_change(run_id, total)` is told each new total."""

    def __init__(self, on_change: Callable[[str, int], None]) -> None:
        self._on_change = on_change
        self._counts: dict[str, dict[str, int]] = {}

    @property
    def gateways(self) -> set[str]:
        """Who has told of readers."""
        return set(self._counts)

    def update(self, gateway_id: str, counts: dict[str, int]) -> None:
        """Take one gateway's counts for some runs."""
        known = self._counts.setdefault(gateway_id, {})
        changed = [run_id for run_id, count in counts.items() if known.get(run_id, 0) != count]
        known.update(counts)
        self._settle(gateway_id, changed)

    def replace(self, gateway_id: str, counts: dict[str, int]) -> None:
        """Take one gateway's counts for all runs: it has no others."""
        known = self._counts.get(gateway_id, {})
        self.update(gateway_id, {**dict.fromkeys(known, 0), **counts})

    def forget_run(self, run_id: str) -> None:
        """Forget a run that is over."""
        for gateway_id in list(self._counts):
            self._counts[gateway_id].pop(run_id, None)
            self._settle(gateway_id, [])

    def _settle(self, gateway_id: str, changed: list[str]) -> None:
        known = self._counts[gateway_id]
        for run_id in [run_id for run_id, count in known.items() if count <= 0]:
            del known[run_id]
        if not known:
            del self._counts[gateway_id]
        for run_id in changed:
            self._on_change(run_id, sum(counts.get(run_id, 0) for counts in self._counts.values()))


class Inbox:
    """This gateway's messages, in and out. `owns(run_id)`: whether a run is ours and open."""

    def __init__(
        self, gateway_id: str, keys: Keys, options: SharedLogOptions, commands: Commands, local: LocalRuns, owns: Callable[[str], bool]
    ) -> None:
        self._gateway_id = gateway_id
        self._keys = keys
        self._limits = (options.inbox_limit, math.ceil(inbox_ttl_s(options) * 1000))
        self._commands = commands
        self._local = local
        self._owns = owns
        self.remote_readers = RemoteReaders(self._on_remote_readers)
        # By owner and run, our own readers of others' runs; and for how many rounds an owner has been told of none.
        self._told: dict[str, dict[str, int]] = {}
        self._empty: dict[str, int] = {}

    def on_message(self, fields: Sequence[bytes]) -> None:
        """Take one message from our inbox. A kind that this version doesn't know is passed over."""
        message = dict(zip(fields[::2], fields[1::2], strict=True))
        kind = message[KIND]
        if kind == CANCEL:
            self.cancel_here(message[CONTENT].decode())
        elif kind in (READERS, ALL_READERS):
            counts = {run_id: count for run_id, count in orjson.loads(message[CONTENT]).items() if self._owns(run_id)}
            take = self.remote_readers.update if kind == READERS else self.remote_readers.replace
            take(message[FROM].decode(), counts)

    def cancel_here(self, run_id: str) -> None:
        """Hand a cancel to a run of ours."""
        if self._owns(run_id):
            self._local.on_cancel(run_id)

    async def cancel(self, run_id: str) -> bool:
        """Ask the run's owner to cancel it; return False where the run is over or unknown, or its owner dead.

        Raises:
            GatewayError: `log-unavailable`.
        """
        owner = await self._commands.ask(
            *scripts.TELL_OWNER.call,
            *(2, self._keys.run(run_id), self._keys.gateways, self._keys.inbox_prefix),
            *(*self._limits, KIND, CANCEL, FROM, self._gateway_id, CONTENT, run_id),
        )
        return owner is not None

    def readers(self, owner: str, run_id: str, count: int) -> None:
        """Tell an owner how many readers we have for its run, where that changed."""
        if owner == self._gateway_id:
            return
        told = self._told.setdefault(owner, {})
        if told.get(run_id, 0) == count:
            return
        self._empty.pop(owner, None)
        if count:
            told[run_id] = count
        else:
            del told[run_id]
        self._tell(owner, READERS, orjson.dumps({run_id: count}))

    def repeat_readers(self) -> None:
        """Tell every owner all our counts for its runs."""
        for owner, counts in list(self._told.items()):
            self._tell(owner, ALL_READERS, orjson.dumps(counts))
            if not counts:
                self._empty[owner] = self._empty.get(owner, 0) + 1
                if self._empty[owner] >= EMPTY_ROUNDS:
                    del self._told[owner], self._empty[owner]

    def wake(self) -> None:
        """Put a message that says nothing into our own inbox."""
        self._tell(self._gateway_id, WAKE, b"")

    def _tell(self, gateway_id: str, kind: bytes, content: bytes) -> None:
        inbox = self._keys.inbox(gateway_id)
        self._commands.tell(*scripts.TELL.call, 1, inbox, *self._limits, KIND, kind, FROM, self._gateway_id, CONTENT, content)

    def _on_remote_readers(self, run_id: str, total: int) -> None:
        if self._owns(run_id):
            self._local.on_remote_readers(run_id, total)


def inbox_ttl_s(options: SharedLogOptions) -> float:
    """Return how long an inbox lives after its gateway's last sign of life."""
    return max(60.0, 4 * options.lease_ttl_s)
