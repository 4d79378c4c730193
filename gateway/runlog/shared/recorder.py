"""What one run has to say to the shared log, on its way there: a queue, and how it becomes commands.

Owned by the writer. The run calls `appended`, `status` and `ended`, which only queue. Entries get consecutive ordinals
when they are sent, which are their ids in the stream: an entry that is sent twice is written once, a reader's cursor
stays good when the server has lost everything, and what is missing shows in the chunks' own numbers.

    queued (Chunks, Status) --take--> sent (bytes with ordinals) --DONE--> gone
                                        ^  |                 --FENCED--> the run isn't ours any more
                                        |  connection lost --> sent again, first
                                        +-- MISSING: the record is made again, then sent again;
                                                     or, where the server has lost nothing, FENCED
"""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import Any, NamedTuple, Protocol

from gateway.events import Chunks, Ended, Status
from gateway.runlog.shared import scripts
from gateway.runlog.shared.commands import Request
from gateway.runlog.shared.entries import CHUNKS, STATUS, encode_chunks, encode_end, encode_status
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.link import LinkLost, Refusal
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.records import Claim, RunRecord, encode_record
from gateway.runlog.shared.scripts import Answer

# What a queued status is counted as, and how many entries one command carries at most.
STATUS_BYTES = 512
ENTRIES_A_COMMAND = 64


class Sent(NamedTuple):
    """Entries that are under way: the first one's ordinal, fields and values in turn, and what they stand for."""

    first: int
    values: list[bytes]
    chunks: int
    state: str
    size_bytes: int


class RecorderOwner(Protocol):
    """Who sends for the recorders and counts their bytes: the writer."""

    def queued(self, recorder: Recorder, size_bytes: int) -> None:
        """There is something to send, and so many bytes more wait."""

    def freed(self, size_bytes: int) -> None:
        """So many bytes wait no more."""

    def finished(self, recorder: Recorder) -> None:
        """The log has the end of the run."""

    def fenced(self, recorder: Recorder) -> None:
        """The log says that the run isn't this gateway's any more; what waited is dropped."""


class Recorder:
    """One run's way into the log; see the module. `epoch` names the server that has its record, and which of its lives."""

    def __init__(
        self, record: RunRecord, claim: Claim | None, epoch: str, keys: Keys, options: SharedLogOptions, owner: RecorderOwner
    ) -> None:
        self.record = record
        self.open = True
        # What waits here and is counted in the writer's total: queued and sent.
        self.size_bytes = 0
        self.dropped_chunks = 0
        # In the writer's list of those that have something to send.
        self.listed = False
        self._epoch = epoch
        self._missing = False
        self._end: Ended | None = None
        self._claim = claim
        self._keys = keys
        self._options = options
        self._owner = owner
        self._queue: deque[Chunks | Status] = deque()
        self._sent: Sent | None = None
        self._ordinal = 1
        self._chunks = 0
        self._state = record.state
        # Sizes of the entries that the log keeps, oldest first: the last one has the ordinal before `_ordinal`.
        self._kept: deque[int] = deque()
        self._kept_bytes = 0
        self._keys_are_ours = True
        self._append = (*scripts.APPEND.call, 2, keys.run(record.id), keys.log(record.id), record.owner)
        self._open_ttl_ms = math.ceil(options.open_ttl_s * 1000)

    # what the run says

    def appended(self, batch: Chunks) -> None:
        """Queue a batch. Nothing is queued once the run has ended or isn't ours any more."""
        if self.open:
            self._queue.append(batch)
            self.size_bytes += batch.size_bytes
            self._owner.queued(self, batch.size_bytes)

    def status(self, status: Status) -> None:
        """Queue a status; one that still waits is replaced."""
        if not self.open:
            return
        if self._queue and isinstance(self._queue[-1], Status):
            self._queue[-1] = status
            return
        self._queue.append(status)
        self.size_bytes += STATUS_BYTES
        self._owner.queued(self, STATUS_BYTES)

    def ended(self, ended: Ended) -> None:
        """Queue the end, which is never dropped; the first one counts."""
        if self.open:
            self.open = False
            self._end = ended
            self._owner.queued(self, 0)

    # what the writer does with it

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send."""
        return self._sent is None and not self._queue and self._end is None and not self._missing

    @property
    def queued_bytes(self) -> int:
        """How much can be dropped."""
        return self.size_bytes - (0 if self._sent is None else self._sent.size_bytes)

    def drop_oldest(self, size_bytes: int) -> None:
        """Drop the oldest of what is queued until so many bytes are free. The end stays."""
        freed = 0
        while self._queue and freed < size_bytes:
            item = self._queue.popleft()
            if isinstance(item, Chunks):
                self.dropped_chunks += len(item.payloads)
                freed += item.size_bytes
            else:
                freed += STATUS_BYTES
        self._free(freed)

    def take(self, epoch: str) -> list[Request]:
        """Return what is to be sent now to the server of this epoch: the record where it may have none, entries, at last the end."""
        requests = []
        if self._missing or self._epoch != epoch:
            requests.append(Request(self._restore(epoch), partial(self._on_restored, epoch)))
        if self._sent is None and self._queue:
            self._sent = self._encode()
        if self._sent is not None:
            requests.append(Request(self._command(self._sent), self._on_appended))
        if self._end is not None and not self._queue:
            requests.append(Request(self._finish(self._end), self._on_finished))
        return requests

    def doubt(self) -> None:
        """Have the record looked after first, as if it were missing: the run may not be this gateway's any more."""
        self._missing = True

    def keep(self) -> tuple[str | bytes | int, ...]:
        """Return the command that lets the run's keys live on."""
        keys, record = self._keys, self.record
        names = (keys.run(record.id), keys.log(record.id), keys.expiry)
        return (*scripts.KEEP.call, 3, *names, record.id, record.owner, self._open_ttl_ms)

    # what the log says; when it said nothing, the same is sent again

    def _on_restored(self, epoch: str, reply: Any) -> None:
        answer = _read_answer(reply)
        if answer is Answer.DONE:
            self._epoch = epoch
            self._missing = False
        elif answer is not None:
            self._fence()

    def _on_appended(self, reply: Any) -> None:
        answer = _read_answer(reply)
        if answer is Answer.DONE and self._sent is not None:
            size_bytes, self._sent = self._sent.size_bytes, None
            self._free(size_bytes)
        elif answer is Answer.MISSING:
            self._missing = True
        elif answer is not None:
            self._fence()

    def _on_finished(self, reply: Any) -> None:
        answer = _read_answer(reply)
        if answer is Answer.DONE:
            self._close()
            self._owner.finished(self)
        elif answer is Answer.MISSING:
            self._missing = True
        elif answer is not None:
            self._fence()

    def _fence(self) -> None:
        """Give the run up."""
        if self._keys_are_ours:
            self._close()
            self._owner.fenced(self)

    def _close(self) -> None:
        self.open = self._keys_are_ours = False
        self._queue.clear()
        self._sent = self._end = None
        self._free(self.size_bytes)

    def _free(self, size_bytes: int) -> None:
        self.size_bytes -= size_bytes
        self._owner.freed(size_bytes)

    def _encode(self) -> Sent:
        """Make entries of what is queued: neighbouring batches become one, up to a bound."""
        first = self._ordinal
        values: list[bytes] = []
        sizes: list[int] = []
        freed = 0
        state = ""
        queue = self._queue
        while queue and len(sizes) < ENTRIES_A_COMMAND and freed < self._options.flush_bytes:
            item = queue.popleft()
            if isinstance(item, Status):
                freed += STATUS_BYTES
                state = self._state = item.state
                values += (STATUS, encode_status(item))
            else:
                freed += item.size_bytes
                batch = item if not queue else self._join(item)
                freed += batch.size_bytes - item.size_bytes
                self._chunks = batch.first + len(batch.payloads) - 1
                values += (CHUNKS, encode_chunks(batch.first, batch.payloads, batch.attributes))
            sizes.append(len(values[-1]))
        self._ordinal += len(sizes)
        self._kept.extend(sizes)
        self._kept_bytes += sum(sizes)
        return Sent(first, values, self._chunks, state, freed)

    def _join(self, batch: Chunks) -> Chunks:
        """Return the batch and those right behind it in the queue, as one."""
        queue = self._queue
        limit = self._options.entry_bytes
        size_bytes = batch.size_bytes
        joined: list[Chunks] = [batch]
        following = batch.first + len(batch.payloads)
        while queue:
            item = queue[0]
            if isinstance(item, Status) or item.first != following or size_bytes + item.size_bytes > limit:
                break
            queue.popleft()
            joined.append(item)
            size_bytes += item.size_bytes
            following += len(item.payloads)
        if len(joined) == 1:
            return batch
        payloads = [payload for part in joined for payload in part.payloads]
        attributes = {number: value for part in joined if part.attributes for number, value in part.attributes.items()}
        return Chunks(batch.first, payloads, size_bytes, attributes or None)

    def _oldest_kept(self) -> str:
        """Return the oldest ordinal to keep, as a stream id; '' when nothing has to go."""
        options = self._options
        kept = self._kept
        if self._kept_bytes <= options.run_limit_bytes and len(kept) <= options.run_limit_entries:
            return ""
        while len(kept) > 1 and (self._kept_bytes > options.run_limit_bytes or len(kept) > options.run_limit_entries):
            self._kept_bytes -= kept.popleft()
        return f"{self._ordinal - len(kept)}-0"

    def _command(self, sent: Sent) -> tuple[str | bytes | int, ...]:
        return (*self._append, sent.first, sent.chunks, sent.state, self._oldest_kept(), self._open_ttl_ms, *sent.values)

    def _finish(self, ended: Ended) -> tuple[str | bytes | int, ...]:
        keys, run_id, owner = self._keys, self.record.id, self.record.owner
        ttl_ms = math.ceil(self._options.ttl_s * 1000)
        return (
            *scripts.FINISH.call,
            4,
            *(keys.run(run_id), keys.log(run_id), keys.owned(owner), keys.expiry),
            *(owner, self._ordinal, ended.chunks, ended.outcome.value, encode_end(ended), ttl_ms, run_id),
        )

    def _restore(self, epoch: str) -> tuple[str | bytes | int, ...]:
        keys, record = self._keys, self.record
        names = [keys.run(record.id), keys.log(record.id), keys.owned(record.owner), keys.runs, keys.expiry, keys.epoch]
        if self._claim is not None:
            names.append(keys.claim(self._claim.key))
        server, _, word = self._epoch.partition(":")
        last = self._ordinal - 1 if self._sent is None else self._sent.first - 1
        return (
            *scripts.RESTORE.call,
            len(names),
            *names,
            *(record.id, record.owner, encode_record(record), record.created_at_ms, self._state, last, self._chunks),
            self._open_ttl_ms,
            word if server == epoch.partition(":")[0] else "",
            "" if self._claim is None else self._claim.fingerprint,
        )


def _read_answer(reply: Any) -> Answer | None:
    """Return what the log said; None where it isn't known, and the same is to be sent again. A run that it refuses is FENCED."""
    if isinstance(reply, LinkLost) or (isinstance(reply, Refusal) and reply.trouble):
        return None
    return Answer.FENCED if isinstance(reply, Refusal) else Answer(reply)
