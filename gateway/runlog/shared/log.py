"""The log that many gateways share: what a gateway holds of it, and the tasks that keep it.

A gateway is one process with an id. The one that executes a run owns it and records what the run says; any other can
find, follow and cancel it. `gateway.runlog.shared` has the data model. This module puts the parts together and owns
their tasks; what each part does and guarantees stands there.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping

import structlog

from gateway.errors import GatewayError
from gateway.runlog.shared.address import Address
from gateway.runlog.shared.commands import Commands
from gateway.runlog.shared.directory import Directory
from gateway.runlog.shared.following import Following, FollowSink
from gateway.runlog.shared.inbox import Inbox, LocalRuns
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.link import Link, LinkLost
from gateway.runlog.shared.membership import Membership
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.reader import Reader
from gateway.runlog.shared.recorder import Recorder
from gateway.runlog.shared.records import Claim, RunPage, RunRecord
from gateway.runlog.shared.scripts import SCRIPTS
from gateway.runlog.shared.sessions import Home, SharedSession, SharedSessions
from gateway.runlog.shared.writer import Writer

_log = structlog.get_logger("gateway.runlog")


class SharedLog:
    """One gateway's side of the log. For one event loop; `run` must be running for anything to happen.

    Every coroutine here raises GatewayError `log-unavailable` (503, with a time to wait) where the log is not there, at
    once when that is known, else within a few seconds; the rest is synchronous and never fails for that reason.
    """

    def __init__(self, url: str, gateway_id: str, local: LocalRuns, options: SharedLogOptions | None = None) -> None:
        """`gateway_id` must be new for each process. `local` hears what others want of our runs.

        Raises:
            ValueError: the URL can't be used, and why.
        """
        self.gateway_id = gateway_id
        self.options = options or SharedLogOptions()
        self._address = Address(url)
        self._keys = keys = Keys(self.options.prefix)
        self._local = local
        self._commands = Commands(self._address, gateway_id, self.options, self._greet)
        self._writer = Writer(keys, self.options, self._commands, self._on_over)
        self._inbox = Inbox(gateway_id, keys, self.options, self._commands, local, self._writer.__contains__)
        self._reader = Reader(self._address, gateway_id, keys, self.options, self._commands, self._inbox.on_message, self._inbox.wake)
        self._membership = Membership(gateway_id, keys, self.options, self._commands, self._writer)
        self._directory = Directory(gateway_id, keys, self.options, self._commands, self._writer)
        self._sessions = SharedSessions(keys, self._commands)

    def __repr__(self) -> str:
        state = "available" if self.available else "unavailable"
        return f"<SharedLog {self._address} as {self.gateway_id}: {state}, {len(self._writer)} recorded, {len(self._reader)} followed>"

    # being there

    @property
    def available(self) -> bool:
        """Whether the log can be used now."""
        return self._commands.available

    @property
    def queued_bytes(self) -> int:
        """How much waits to be written, over all runs; at most `queue_limit_bytes` and what is under way."""
        return self._writer.size_bytes

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Call `listener(available)` at each change, synchronously; it must not raise."""
        self._commands.listen(listener)

    async def connected(self) -> None:
        """Wait until the log is available, for as long as it takes."""
        await self._commands.connected()

    async def probe(self) -> None:
        """Connect once, to say early what is wrong: an address nobody listens at, a wrong password.

        Raises:
            GatewayError: `log-unavailable`, and why.
        """
        try:
            link = await Link.open(self._address, timeout_s=self.options.operation_timeout_s, name=f"gateway-{self.gateway_id}-probe")
            await link.close()
        except LinkLost as exc:
            raise GatewayError("log-unavailable", f"The shared log can't be used: {exc}") from exc

    async def run(self) -> None:
        """Keep everything going until cancelled: connections come back by themselves. Call it once; `leave` before the end."""
        options = self.options
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commands.run())
            tasks.create_task(self._reader.run())
            tasks.create_task(self._repeat(options.lease_interval_s, self._renew))
            tasks.create_task(self._repeat(options.sweep_interval_s, self._sweep))
            tasks.create_task(self._repeat(options.lease_ttl_s, self._repeat_readers))
            tasks.create_task(self._repeat(options.check_interval_s, self._reader.check))
            tasks.create_task(self._repeat(options.open_ttl_s / 4, self._membership.keep_runs))

    async def leave(self, timeout_s: float) -> bool:
        """Wait until all that was recorded is in the log, then give the lease back; for a graceful stop, before `run` is cancelled.

        Return False where runs are open after `timeout_s`, or the log isn't there: others end those runs when the lease lapses.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.emptied()
                return await self._membership.leave()
        except (TimeoutError, GatewayError):
            return False

    # runs of this gateway

    async def register(self, record: RunRecord, claim: Claim | None = None) -> RunRecord:
        """Make a run's record, which this gateway owns, together with its idempotency claim; return it.

        Where another run has the claim, with the same fingerprint, that one's record is returned and none is made: compare
        the ids. A claim lives as long as its run. A caller who is cancelled leaves no run behind.

        Raises:
            GatewayError: `idempotency-conflict`: the claim came with another fingerprint before. `log-unavailable`.
        """
        return await self._directory.register(record, claim)

    def withdraw(self, run_id: str) -> None:
        """Forget a run that was registered here and never began, its claim included; sync, and done soon."""
        self._directory.withdraw(run_id)

    def recorder(self, run_id: str) -> Recorder:
        """Return what a run that was registered here speaks to: `appended`, `status`, `ended`.

        Raises:
            KeyError: it was not, or is over.
        """
        return self._writer[run_id]

    # runs of any gateway

    async def find(self, run_id: str) -> RunRecord | None:
        """Return a run's record, with its end where it has one; None where the log doesn't know it (any more)."""
        return await self._directory.find(run_id)

    async def list(
        self, cursor: str | None = None, limit: int = 20, *, state: str | None = None, tool: str | None = None, caller: str | None = None
    ) -> RunPage:
        """Return up to `limit` (at least 1) runs, newest first, those of one state, tool or caller where that is said. See RunPage.

        Raises:
            GatewayError: `invalid-option`: the cursor is none. `log-unavailable`.
        """
        return await self._directory.list(cursor, limit, state, tool, caller)

    async def follow(self, run_id: str, sink: FollowSink) -> Following:
        """Deliver a run to a sink: all that the log has of it, then what comes, until its end. One following a run and gateway.

        While the log is unreachable nothing comes, afterwards it goes on; see FollowSink for what may be missing.

        Raises:
            GatewayError: `run-not-found`. `log-unavailable`.
            ValueError: this gateway follows the run already.
        """
        record = await self._directory.find(run_id)
        if record is None:
            raise GatewayError("run-not-found", f"The shared log has no run {run_id}")
        return self.follow_known(record, sink)

    def follow_known(self, record: RunRecord, sink: FollowSink) -> Following:
        """Do what `follow` does for a run that was just found; sync. Should it be gone by now, it expires after a while.

        Raises:
            ValueError: this gateway follows the run already.
        """
        run_id, owner = record.id, record.owner
        following = Following(record, sink, lambda count: self._inbox.readers(owner, run_id, count), self._reader.remove)
        self._reader.add(following)
        return following

    async def cancel(self, run_id: str) -> bool:
        """Ask a run's owner to cancel it; the run's end is the answer. False: it is over or unknown, or its owner is dead."""
        if run_id in self._writer:
            self._local.on_cancel(run_id)
            return True
        return await self._inbox.cancel(run_id)

    # sessions of all gateways

    async def session_touch(self, session_id: str, metadata: Mapping[str, str] | None, ttl_s: float) -> SharedSession:
        """Return the session, made with this metadata if there is none, and let it live for `ttl_s` from now."""
        return await self._sessions.touch(session_id, metadata, ttl_s)

    async def session_get(self, session_id: str) -> SharedSession | None:
        """Return the session, or None where there is none (any more)."""
        return await self._sessions.get(session_id)

    async def session_end(self, session_id: str) -> bool:
        """Forget a session; return whether there was one."""
        return await self._sessions.end(session_id)

    async def session_settle(self, session_id: str, pool: str, worker: str, ttl_s: float, *, instead_of: Home | None = None) -> Home:
        """Give the session its home in a pool, this gateway's `worker`, and return the one in force.

        That is another one, where the session has one on a gateway that lives, unless it is `instead_of`.
        """
        home = Home(self.gateway_id, worker)
        return await self._sessions.settle(session_id, pool, home, ttl_s=ttl_s, instead_of=instead_of)

    # what may be used once, among all gateways

    async def use_ticket(self, ticket: str, ttl_s: float) -> bool:
        """Note that a one-time ticket is used, for as long as it could be; False: it was used before."""
        milliseconds = math.ceil(ttl_s * 1000)
        return await self._commands.ask("SET", self._keys.ticket(ticket), "1", "NX", "PX", milliseconds) is not None

    # the tasks' work

    async def _greet(self, link: Link) -> None:
        for script in SCRIPTS:
            await link.ask("SCRIPT", "LOAD", script.text, timeout_s=self.options.operation_timeout_s)
        self._writer.server_is(await self._membership.greet(link, self._reader.inbox_cursor))

    async def _renew(self) -> None:
        self._writer.server_is(await self._membership.renew(self._reader.inbox_cursor))

    async def _sweep(self) -> None:
        for gateway_id in await self._membership.sweep(self._inbox.remote_readers.gateways):
            self._inbox.remote_readers.replace(gateway_id, {})

    async def _repeat_readers(self) -> None:
        self._inbox.repeat_readers()

    async def _repeat(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do it every so often, not in step with other gateways, while the log is available."""
        while True:
            await asyncio.sleep(interval_s * random.uniform(0.8, 1.1))
            await self._commands.connected()
            try:
                await work()
            except GatewayError:
                # The log was lost meanwhile; `commands` says so and connects again.
                continue
            except Exception as exc:
                # An answer that makes no sense: the next one may. The tasks here are the gateway's, and end it with them.
                _log.error("shared log: an answer makes no sense", asked_by=work.__name__, reason=repr(exc))

    def _on_over(self, run_id: str, fenced: bool) -> None:
        self._inbox.remote_readers.forget_run(run_id)
        if fenced:
            self._local.on_fenced(run_id)
