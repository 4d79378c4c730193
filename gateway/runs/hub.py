"""Where runs are opened, found and counted. The front doors' only way in.

Owns every run that is open, and for a while those that have ended. Opening checks, in this order: the idempotency key,
draining, memory, the tool, whether its caller may run it, its kind, the arguments, the number of open runs, the caller's limits,
then asks the tool's pool for a worker.

A run is its caller's: who asks for one has to say who it is, and what is somebody else's is answered as if it were not there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.auth.scopes import tool_refused
from gateway.call import ToolCall
from gateway.caller import Caller
from gateway.errors import GatewayError
from gateway.runlog.base import RunRecorder
from gateway.runlog.budget import MemoryBudget
from gateway.runs.arguments import ArgumentChecker
from gateway.runs.idempotency import Claim, IdempotencyKeys
from gateway.runs.identity import is_run_id, new_run_id
from gateway.runs.others import OtherGateways
from gateway.runs.policy import Cause, RunLimits, RunPolicy, invalid_option
from gateway.runs.pressure import MemoryWatch
from gateway.runs.quotas import Quotas
from gateway.runs.registry import RunRegistry
from gateway.runs.run import Run
from gateway.runs.source import RunSource
from gateway.services.tool import RpcTool
from gateway.telemetry.tally import OTHER, RunTally
from gateway.workers.catalog import Catalog, Tool
from gateway.workers.pool import Pool

# About how long a client should wait for another gateway when this one shuts down.
RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class HubLimits:
    """The bounds on all runs together.

    `open_runs`: runs that are queued or running at once. `kept_runs`: ended ones that are still known by their id, each
    for `ttl_s`. `log_bytes`: what all their chunks may take.
    """

    open_runs: int = 10_000
    kept_runs: int = 10_000
    ttl_s: float = 300.0
    log_bytes: int = 256 * 1024 * 1024
    run: RunLimits = field(default_factory=RunLimits)


class RunTracer(Protocol):
    """Who traces runs (telemetry/tracing.py)."""

    def begin(self, call: ToolCall) -> ToolCall:
        """Return the call as part of a trace: its correlation is the trace's, and `trace` hears of the run unless it is not sampled."""


class RunJournal(Protocol):
    """Who writes a line on every run (journal.py)."""

    def run_ended(self, run: Run) -> None:
        """A run has ended."""


class Hub:
    """The runs of this gateway, and the pools behind them (`pools`: name to pool, the first is the default).

    `tally` counts what becomes of runs for the operator, `tracer` traces them, `journal` writes a line on each; None: nobody does.
    """

    def __init__(
        self,
        catalog: Catalog,
        pools: Mapping[str, Pool],
        limits: HubLimits,
        tally: RunTally | None = None,
        *,
        tracer: RunTracer | None = None,
        journal: RunJournal | None = None,
    ) -> None:
        self.catalog = catalog
        self.pools = pools
        self.limits = limits
        self.tally = tally
        self._tracer = tracer
        self._journal = journal
        self.budget = MemoryBudget(limits.log_bytes)
        self.memory = MemoryWatch(self.budget, self._read_runs)
        self._keys = IdempotencyKeys()
        self._runs = RunRegistry(kept_limit=limits.kept_runs, ttl_s=limits.ttl_s, on_forgotten=self._keys.forget)
        # One checker a tool, kept as long as the worker describes it by the same schema.
        self._checkers: dict[tuple[str, str], tuple[Mapping[str, object], ArgumentChecker]] = {}
        # Set by who knows other gateways; None: this is the only one.
        self.others: OtherGateways | None = None
        # What callers may take; None: as much as they like.
        self.quotas: Quotas | None = None
        # Whether those who route should send no more: from the first signal on, while runs may still begin for a moment.
        self.leaving = False
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_runs(self) -> int:
        """How many runs are queued or running."""
        return len(self._runs.open)

    @property
    def known_runs(self) -> Collection[Run]:
        """Those that are open, and those that have ended and are still kept; not to be changed."""
        return self._runs.known

    @property
    def live_runs(self) -> Collection[Run]:
        """Those that are queued or running here; not to be changed."""
        return self._runs.open.values()

    @property
    def draining(self) -> bool:
        """True once no new run is accepted."""
        return self._draining

    async def start(self, call: ToolCall, policy: RunPolicy, claim: Claim | None = None) -> RunSource:
        """Do what `open` does, for all gateways where there are others.

        Raises:
            GatewayError: as `open`; `log-unavailable`.
        """
        if self.others is None:
            return self.open(call, policy, claim)
        try:
            return await self.others.start(call, policy, claim)
        except GatewayError as error:
            self._count_refusal(call, error)
            raise

    async def look_up(self, run_id: str, caller: Caller) -> RunSource:
        """Return a run of the caller's, of any gateway where there are others.

        Raises:
            GatewayError: as `get`; `log-unavailable`.
        """
        return self.get(run_id, caller) if self.others is None else await self.others.look_up(run_id, caller)

    async def cancel(self, run_id: str, caller: Caller) -> RunSource:
        """Cancel a run of the caller's, of any gateway where there are others, and return it.

        Raises:
            GatewayError: as `look_up`.
        """
        run = await self.look_up(run_id, caller)
        if self.others is not None:
            return await self.others.cancel(run)
        run.cancel(Cause.CLIENT)
        return run

    async def page(
        self, caller: Caller, *, limit: int, after: str | None = None, state: str | None = None, tool: str | None = None
    ) -> tuple[Sequence[RunSource], str | None]:
        """Return a page of the caller's runs, newest first, of all gateways where there are others; and the cursor of the next page.

        Raises:
            GatewayError: `invalid-option`, `after` is no cursor; `log-unavailable`.
        """
        if self.others is not None:
            return await self.others.list(caller, limit=limit, after=after, state=state, tool=tool)
        if after is not None and not is_run_id(after):
            raise invalid_option("cursor", f"is {after[:40]!r}; it is what `cursor` of the page before says")
        page = self._runs.page(caller, limit=limit, after=after, state=state, tool=tool)
        return page.runs, page.next

    def open(
        self,
        call: ToolCall,
        policy: RunPolicy | None = None,
        claim: Claim | None = None,
        *,
        run_id: str | None = None,
        recorder: RunRecorder | None = None,
    ) -> Run:
        """Start a run here and return it; it may be queued. With the claim of a request that came before, return that one's run.

        `run_id` and `recorder` are those of a run that was registered with other gateways.

        Raises:
            GatewayError: `idempotency-conflict`, `shutting-down`, `memory-pressure`, `tool-not-found`, `rpc-not-found`, `pool-not-found`,
                `scope-missing`, `tool-not-streaming`, `tool-streams`, `invalid-arguments`, `invalid-message`, `too-many-streams`,
                `quota-exceeded`, or what the pool refuses with. Nothing is left behind then.
        """
        try:
            return self._open(call, policy or RunPolicy(), claim, run_id, recorder)
        except GatewayError as error:
            if recorder is None:
                # Else `start` counts it.
                self._count_refusal(call, error)
            raise

    def _open(self, call: ToolCall, policy: RunPolicy, claim: Claim | None, run_id: str | None, recorder: RunRecorder | None) -> Run:
        if claim is not None and (known := self._keys.find(claim)) is not None:
            return known
        if self._draining:
            # Jittered, so that those who are refused now don't come back all at once.
            retry_after_s = random.uniform(0.5, 1.5) * RETRY_AFTER_S
            raise GatewayError(
                "shutting-down", "The gateway takes no new runs; another one or a later try may", retry_after_s=retry_after_s
            )
        if self.memory.refuses:
            raise self.memory.refusal()
        tool = self.check(call)
        if self.open_runs >= self.limits.open_runs:
            detail = f"{self.open_runs} runs are open, the limit is {self.limits.open_runs}"
            raise GatewayError("too-many-streams", detail, retry_after_s=1)
        account = None if self.quotas is None else self.quotas.account(call.caller)
        if account is not None:
            account.check_start()
        call = self.traced(call)
        run = Run(
            run_id or new_run_id(),
            call,
            policy,
            self.limits.run,
            self,
            self.budget,
            is_claimed=claim is not None,
            recorder=recorder,
            tally=self.tally,
        )
        self._runs.add(run)
        self._idle.clear()
        try:
            run.start(self.pools[tool.pool])
        except GatewayError as error:
            if call.trace is not None:
                call.trace.refused(error)
            self._runs.discard(run)
            self._look_idle()
            raise
        if account is not None and run.ended is None:
            run.account = account
            account.open_runs += 1
        if claim is not None:
            self._keys.keep(claim, run)
        return run

    def claimed(self, claim: Claim) -> Run | None:
        """Return the run that a request with this claim would join, None where it would start one.

        Raises:
            GatewayError: `idempotency-conflict`.
        """
        return self._keys.find(claim)

    def check(self, call: ToolCall) -> Tool:
        """Return the tool of a call that could be opened, as far as can be said without a worker.

        Raises:
            GatewayError: as `open` does for the tool and the arguments.
        """
        tool = self.catalog.find(call.tool, call.pool)
        if not call.caller.grants.may_run(tool.name, tool.pool):
            raise tool_refused(call.caller.grants, tool.name, tool.pool)
        check_kind(tool, streaming=call.streaming)
        self._check_arguments(tool, call)
        return tool

    def traced(self, call: ToolCall) -> ToolCall:
        """Return the call with the trace of its own that it has where runs are traced; one that has it already is left as it is."""
        return call if self._tracer is None or call.trace is not None else self._tracer.begin(call)

    def find(self, run_id: str, caller: Caller) -> Run | None:
        """Return a run of the caller's that is open or was so lately, else None."""
        run = self._runs.find(run_id)
        return run if run is not None and caller.may_see(run.caller_id) else None

    def find_anybodys(self, run_id: str) -> Run | None:
        """Return a run that is open or was so lately, whoever's it is, else None: for who asks in no caller's name."""
        return self._runs.find(run_id)

    def get(self, run_id: str, caller: Caller) -> Run:
        """Return a run of the caller's that is open or was so lately.

        Raises:
            GatewayError: `run-expired` for one that was forgotten lately, `run-not-found` for any other.
        """
        run = self.find(run_id, caller)
        if run is not None:
            return run
        if self._runs.is_expired(run_id, caller):
            raise GatewayError("run-expired", f"Run {run_id} is over and forgotten")
        raise run_not_found(run_id)

    def run_ended(self, run: Run) -> None:
        """Move a run to those that have ended."""
        if run.account is not None:
            run.account.open_runs -= 1
        self._runs.end(run)
        self._look_idle()
        if self._journal is not None:
            self._journal.run_ended(run)

    def cause_of(self, run_id: str) -> str:
        """Return why a run was ended, by a name of tally.CANCEL_CAUSES; OTHER for one that ended by itself, or is forgotten."""
        run = self._runs.find(run_id)
        return OTHER if run is None or run.cause is None else run.cause

    async def drain(self, deadline_s: float) -> None:
        """Take no new runs, wait for the open ones, and end those left after `deadline_s` as `shutdown`."""
        self.leaving = self._draining = True
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            for run in list(self._runs.open.values()):
                run.cancel(Cause.SHUTDOWN)

    def _check_arguments(self, tool: Tool, call: ToolCall) -> None:
        if isinstance(tool, RpcTool):
            if call.rpc is None:
                tool.method.request.from_json(call.arguments)
            return
        if tool.parameters is None or call.binary:
            # The schema speaks of JSON values; the worker checks a call with raw bytes among its arguments.
            return
        key = (tool.pool, tool.name)
        known = self._checkers.get(key)
        if known is None or known[0] is not tool.parameters:
            known = self._checkers[key] = (tool.parameters, ArgumentChecker(tool.name, tool.parameters))
        known[1].check(call.arguments)

    def _count_refusal(self, call: ToolCall, error: GatewayError) -> None:
        if self.tally is not None:
            is_known = any(call.tool in pool.tools for pool in self.pools.values())
            self.tally.run_refused(call.tool if is_known else OTHER, error.problem)

    def _read_runs(self) -> Iterator[RunSource]:
        """Yield the runs that somebody may read here, as they are now."""
        yield from list(self._runs.known)
        if self.others is not None:
            yield from list(self.others.followed)

    def _look_idle(self) -> None:
        if not self._runs.open:
            self._idle.set()


def run_not_found(run_id: str) -> GatewayError:
    """Return the error for a run that is not known, or is somebody else's: nothing tells the two apart."""
    return GatewayError("run-not-found", f"No run {run_id[:40]!r} is known here (any more)")


def check_kind(tool: Tool, *, streaming: bool) -> None:
    """Return if the tool can be executed that way; one whose kind is unknown can.

    Raises:
        GatewayError: `tool-not-streaming`, in Snakepit's words, or `tool-streams`.
    """
    if tool.supports_streaming is None or tool.supports_streaming is streaming:
        return
    if streaming:
        raise not_streaming(tool.name)
    raise GatewayError("tool-streams", f"{tool.name} streams its results: use /v1/tools/{tool.name}/stream")


def not_streaming(tool: str) -> GatewayError:
    """Return the error for a stream of a tool that has none: Snakepit's sentence (contract §5.1)."""
    detail = (
        f"Streaming execution is not enabled for tool {tool}. "
        "Enable streaming support on the adapter (supports_streaming: true) or use ExecuteTool instead."
    )
    return GatewayError("tool-not-streaming", detail)
