"""The runs of all gateways on one log: the hub's other half, where there is a shared log.

Every front door that may wait asks here instead of the hub. A run is registered in the log before it is started, so that
whoever is told its id finds it on any gateway; a run of another gateway is followed while somebody reads it here. What
other gateways want of our runs (a cancel, their readers' number) comes in by LocalRuns. Owns the tasks that ask the log
where the asker does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any
from weakref import WeakValueDictionary

import structlog

from gateway.call import Affinity, ToolCall
from gateway.caller import Caller
from gateway.errors import GatewayError
from gateway.events import Status
from gateway.runlog.shared import records
from gateway.runlog.shared.log import SharedLog
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.recorder import Recorder
from gateway.runlog.shared.records import RunRecord
from gateway.runlog.shared.starts import SharedStarts
from gateway.runs.followed import FollowedRun
from gateway.runs.hub import Hub, run_not_found
from gateway.runs.idempotency import Claim
from gateway.runs.identity import new_run_id
from gateway.runs.policy import Cause, RunPolicy
from gateway.runs.source import RunSource, start_details

log = structlog.get_logger("gateway.runs")

# How long a cancel waits for the run's end, which is its answer.
CANCEL_WAIT_S = 2.0
LEAVE_TIMEOUT_S = 5.0
GREETING_TIMEOUT_S = 2.0


class SharedRuns:
    """See the module. `run` must be running."""

    def __init__(self, hub: Hub, url: str, gateway_id: str, options: SharedLogOptions, *, session_ttl_s: float) -> None:
        """
        Raises:
            ValueError: the URL can't be used, and why.
        """
        self.log = SharedLog(url, gateway_id, self, options)
        self._hub = hub
        self._session_ttl_s = session_ttl_s
        self._starts = SharedStarts(url, options.prefix)
        # Those that somebody needs; and all that anybody holds, so that one run is one object, however many ask for it at once.
        self._followed: dict[str, FollowedRun] = {}
        self._seen_runs: WeakValueDictionary[str, FollowedRun] = WeakValueDictionary()
        # Those who start a run with a key, by key; a lock is there as long as somebody holds it or waits for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unread = asyncio.Event()
        self._unread.set()
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Keep the log and everything that is asked of it going until cancelled; `leave` before that."""
        self.log.listen(lambda available: log.info("shared log", available=available))
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            keeper = tasks.create_task(self.log.run(), name="shared log")
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None
                keeper.cancel()
                await self._starts.aclose()

    @property
    def available(self) -> bool:
        """Whether the log can be used now."""
        return self.log.available

    @property
    def followed(self) -> list[FollowedRun]:
        """The runs of other gateways that somebody reads here."""
        return list(self._followed.values())

    async def greet(self) -> None:
        """Wait at the start for the log, which the first requests need; say where it can't be used, and why.

        That is no reason not to start: it may come.
        """
        try:
            await self.log.probe()
        except GatewayError as error:
            log.error("no shared log", reason=error.detail)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GREETING_TIMEOUT_S):
                await self.log.connected()

    async def drain(self, timeout_s: float) -> None:
        """Wait until nobody here reads a run of another gateway, and cut those who do after `timeout_s`: it goes on without us."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._unread.wait()
        for run in list(self._followed.values()):
            run.cut()

    async def leave(self) -> None:
        """Wait until what was recorded is in the log, and give the lease back; for the end of a drain."""
        await self.log.leave(LEAVE_TIMEOUT_S)

    # what front doors ask

    async def start(self, call: ToolCall, policy: RunPolicy, claim: Claim | None = None) -> RunSource:
        """Start a run, or join the one that has this claim, on whatever gateway it is.

        Raises:
            GatewayError: as Hub.open does; `log-unavailable`, and nothing was started.
        """
        if claim is None:
            return await self._start(call, policy, None)
        # One at a time for each key: the first one of many may be refused, and then it is the second one's turn to try.
        async with self._turns.setdefault(claim.key, asyncio.Lock()):
            return self._hub.claimed(claim) or await self._start(call, policy, claim)

    async def _start(self, call: ToolCall, policy: RunPolicy, claim: Claim | None) -> RunSource:
        tool = self._hub.check(call)
        call = self._hub.traced(call)
        try:
            return await self._register(call, tool.pool, policy, claim)
        except GatewayError as error:
            if call.trace is not None:
                call.trace.refused(error)
            raise

    async def _register(self, call: ToolCall, pool: str, policy: RunPolicy, claim: Claim | None) -> RunSource:
        """Make a run known to all gateways and open it here; where its claim is somebody's already, return that run."""
        hub = self._hub
        account = None if hub.quotas is None else hub.quotas.account(call.caller)
        if account is not None:
            await account.check_everywhere(self._starts)
        run_id = new_run_id()
        await self._go_home(call, pool)
        idle_s = hub.pools[pool].idle_timeout_s if call.streaming else None
        record = RunRecord(
            id=run_id,
            tool=call.tool,
            pool=pool,
            session=call.session_id,
            policy=str(policy.on_disconnect),
            kind="stream" if call.streaming else "unary",
            caller=call.caller.id,
            ticket=call.caller.ticket,
            details=start_details(run_id, call, policy, heartbeat_s=hub.limits.run.heartbeat_s, idle_s=idle_s),
        )
        shared_claim = None if claim is None else records.Claim(claim.key, claim.fingerprint.hex())
        registered = await self.log.register(record, shared_claim)
        if registered.id != run_id:
            return hub.find_anybodys(registered.id) or self._seen(registered)
        recorder = SharedRecorder(self, self.log.recorder(run_id), call.session_id, pool)
        try:
            return hub.open(call, policy, claim, run_id=run_id, recorder=recorder)
        except GatewayError:
            # As if it had never been: a later try with the same key must start one.
            self.log.withdraw(run_id)
            raise

    async def look_up(self, run_id: str, caller: Caller) -> RunSource:
        """Return a run of the caller's, of any gateway.

        Raises:
            GatewayError: `run-expired`, `run-not-found`; `log-unavailable` where it isn't ours.
        """
        run: RunSource | None = self._hub.find_anybodys(run_id) or self._followed.get(run_id)
        if run is None:
            record = await self.log.find(run_id)
            if record is None:
                return self._hub.get(run_id, caller)
            if not caller.may_see(record.caller):
                raise run_not_found(run_id)
            return self._seen(record)
        if not caller.may_see(run.caller_id):
            raise run_not_found(run_id)
        return run

    async def cancel(self, run: RunSource) -> RunSource:
        """Cancel a run and return it as it is then: ended, unless its owner takes longer than CANCEL_WAIT_S."""
        if not isinstance(run, FollowedRun):
            run.cancel(Cause.CLIENT)
            return run
        if run.known_end is None and await self.log.cancel(run.id):
            ended = asyncio.Event()
            forget = run.when_ended(ended.set)
            try:
                async with asyncio.timeout(CANCEL_WAIT_S):
                    await ended.wait()
            except TimeoutError:
                log.warning("cancel not answered in time", run=run.id, waited_s=CANCEL_WAIT_S)
            finally:
                forget()
        if run.known_end is None and (record := await self.log.find(run.id)) is not None:
            run.refresh(record)
        return run

    async def list(
        self, caller: Caller, *, limit: int, after: str | None, state: str | None, tool: str | None
    ) -> tuple[list[RunSource], str | None]:
        """Return a page of the caller's runs on all gateways, newest first, and the cursor of the next one.

        Raises:
            GatewayError: `invalid-option`, the cursor is none; `log-unavailable`.
        """
        owner_id = None if caller.grants.admin else caller.id
        page = await self.log.list(after, limit, state=state, tool=tool, caller=owner_id)
        return [self._hub.find_anybodys(record.id) or self._seen(record) for record in page.runs], page.cursor

    async def touch_session(self, session_id: str, metadata: Mapping[str, str] | None = None) -> tuple[float, Mapping[str, str]]:
        """See OtherGateways."""
        session = await self.log.session_touch(session_id, metadata, self._session_ttl_s)
        return session.created_at_ms / 1000, session.metadata

    async def find_session(self, session_id: str) -> tuple[float, Mapping[str, str]] | None:
        """See OtherGateways."""
        session = await self.log.session_get(session_id)
        return None if session is None else (session.created_at_ms / 1000, session.metadata)

    async def end_session(self, session_id: str) -> bool:
        """See OtherGateways."""
        return await self.log.session_end(session_id)

    async def use_ticket(self, ticket: str, ttl_s: float) -> bool:
        """See OtherGateways."""
        return await self.log.use_ticket(ticket, ttl_s)

    # RunFollower: what followed runs ask

    def follow(self, run: FollowedRun) -> None:
        """See RunFollower."""
        self._followed[run.id] = run
        self._unread.clear()
        run.following = self.log.follow_known(run.record, run)

    def unfollow(self, run: FollowedRun) -> None:
        """See RunFollower."""
        if self._followed.get(run.id) is run:
            del self._followed[run.id]
            if not self._followed:
                self._unread.set()
        following, run.following = run.following, None
        if following is not None:
            following.close()

    def ask_to_cancel(self, run: FollowedRun) -> None:
        """See RunFollower."""
        self._spawn(self.log.cancel(run.id), "cancel not sent", run=run.id)

    # LocalRuns: what other gateways want of ours

    def on_cancel(self, run_id: str) -> None:
        """See LocalRuns."""
        run = self._hub.find_anybodys(run_id)
        if run is not None:
            run.cancel(Cause.CLIENT)

    def on_remote_readers(self, run_id: str, total: int) -> None:
        """See LocalRuns."""
        run = self._hub.find_anybodys(run_id)
        if run is not None:
            run.remote_subscribers(total)

    def on_fenced(self, run_id: str) -> None:
        """See LocalRuns."""
        run = self._hub.find_anybodys(run_id)
        if run is not None:
            run.cancel(Cause.FENCED)

    # sessions

    async def _go_home(self, call: ToolCall, pool_name: str) -> None:
        """See that a session's call finds the worker that the session is tied to, where that can be reached from here.

        Raises:
            GatewayError: `session-worker-unavailable`, a strict affinity's worker is another gateway's own.
        """
        if call.session_id is None:
            return
        session = await self.log.session_touch(call.session_id, None, self._session_ttl_s)
        home = session.homes.get(pool_name)
        if home is None:
            return
        pool = self._hub.pools.get(pool_name)
        if pool is None:
            # Gone with a reload while the log was asked: the hub says so.
            return
        if home.gateway == self.log.gateway_id or pool.kind in ("addresses", "bridge"):
            pool.tie_session(call.session_id, home.worker)
        elif (call.affinity or pool.affinity) is not Affinity.HINT:
            detail = f"worker {home.worker}, which holds the session, belongs to gateway {home.gateway}; send the session's calls there"
            raise GatewayError("session-worker-unavailable", detail)

    def settle(self, session_id: str, pool: str, worker: str) -> None:
        """Note in the log which worker a session's call was given."""
        work = self.log.session_settle(session_id, pool, worker, self._session_ttl_s)
        self._spawn(work, "session's home not noted", session=session_id)

    # tasks

    def _seen(self, record: RunRecord) -> FollowedRun:
        run = self._seen_runs.get(record.id)
        if run is None:
            hub = self._hub
            run = self._seen_runs[record.id] = FollowedRun(record, hub.limits.run, hub.budget, self, hub.tally)
        else:
            run.refresh(record)
        return run

    def _spawn(self, work: Coroutine[Any, Any, Any], failure: str, **about: str) -> None:
        """Ask the log for something whose answer nobody waits for; where that fails, a line says so."""
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(self._unattended(work, failure, about))

    async def _unattended(self, work: Coroutine[Any, Any, Any], failure: str, about: Mapping[str, str]) -> None:
        try:
            await work
        except GatewayError as error:
            log.warning(failure, reason=error.detail, **about)
        except Exception as exc:
            # An answer that makes no sense; beyond here it would end the gateway.
            log.error(failure, reason=repr(exc), **about)


class SharedRecorder:
    """A run's RunRecorder: the log's, and the note of where its session is at home."""

    def __init__(self, runs: SharedRuns, recorder: Recorder, session_id: str | None, pool: str) -> None:
        self._runs = runs
        self._session_id = session_id
        self._pool = pool
        self._recorder = recorder
        self.appended = recorder.appended
        self.ended = recorder.ended

    def status(self, status: Status) -> None:
        """See RunRecorder."""
        self._recorder.status(status)
        worker = status.details.get("worker")
        if self._session_id is not None and worker is not None:
            self._runs.settle(self._session_id, self._pool, worker)
