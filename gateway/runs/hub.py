"""Where runs are opened, found and counted. The front doors' only way in.

Owns every run that is open, and for a while those that have ended. Opening checks, in this order: the idempotency key,
draining, the tool and its kind, the arguments, the number of open runs, then asks the tool's pool for a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.call import ToolCall
from gateway.errors import GatewayError
from gateway.runlog.budget import MemoryBudget
from gateway.runs.arguments import ArgumentChecker
from gateway.runs.idempotency import Claim, IdempotencyKeys
from gateway.runs.identity import new_run_id
from gateway.runs.policy import Cause, RunPolicy
from gateway.runs.registry import RunPage, RunRegistry
from gateway.runs.run import Run, RunLimits
from gateway.workers.catalog import Catalog, Tool
from gateway.workers.pool import Pool


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


class Hub:
    """The runs of this gateway, and the pools behind them (`pools`: name to pool, the first is the default)."""

    def __init__(self, catalog: Catalog, pools: Mapping[str, Pool], limits: HubLimits) -> None:
        self.catalog = catalog
        self.pools = pools
        self.limits = limits
        self.budget = MemoryBudget(limits.log_bytes)
        self._keys = IdempotencyKeys()
        self._runs = RunRegistry(kept_limit=limits.kept_runs, ttl_s=limits.ttl_s, on_forgotten=self._keys.forget)
        # One checker a tool, kept as long as the worker describes it by the same schema.
        self._checkers: dict[tuple[str, str], tuple[Mapping[str, object], ArgumentChecker]] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_runs(self) -> int:
        """How many runs are queued or running."""
        return len(self._runs.open)

    @property
    def draining(self) -> bool:
        """True once no new run is accepted."""
        return self._draining

    def open(self, call: ToolCall, policy: RunPolicy | None = None, claim: Claim | None = None) -> Run:
        """Start a run and return it; it may be queued. With the claim of a request that came before, return that one's run.

        Raises:
            GatewayError: `idempotency-conflict`, `shutting-down`, `tool-not-found`, `pool-not-found`, `tool-not-streaming`,
                `tool-streams`, `invalid-arguments`, `too-many-streams`, or what the pool refuses with. Nothing is left behind then.
        """
        if claim is not None and (known := self._keys.find(claim)) is not None:
            return known
        if self._draining:
            raise GatewayError("shutting-down", "The gateway takes no new runs; another one or a later try may", retry_after_s=5)
        tool = self.check(call)
        if self.open_runs >= self.limits.open_runs:
            detail = f"{self.open_runs} runs are open, the limit is {self.limits.open_runs}"
            raise GatewayError("too-many-streams", detail, retry_after_s=1)
        run = Run(new_run_id(), call, policy or RunPolicy(), self.limits.run, self, self.budget, is_claimed=claim is not None)
        self._runs.add(run)
        self._idle.clear()
        try:
            run.start(self.pools[tool.pool])
        except GatewayError:
            self._runs.discard(run)
            self._look_idle()
            raise
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
        check_kind(tool, streaming=call.streaming)
        self._check_arguments(tool, call)
        return tool

    def find(self, run_id: str) -> Run | None:
        """Return a run that is open or was so lately, else None."""
        return self._runs.find(run_id)

    def get(self, run_id: str) -> Run:
        """Return a run that is open or was so lately.

        Raises:
            GatewayError: `run-expired` for one that was forgotten lately, `run-not-found` for any other.
        """
        run = self._runs.find(run_id)
        if run is not None:
            return run
        if self._runs.is_expired(run_id):
            raise GatewayError("run-expired", f"Run {run_id} is over and forgotten")
        raise GatewayError("run-not-found", f"No run {run_id[:40]!r} is known here (any more)")

    def list(self, *, limit: int, after: str | None = None, state: str | None = None, tool: str | None = None) -> RunPage:
        """Return a page of the runs that are known, newest first; see RunRegistry.page."""
        return self._runs.page(limit=limit, after=after, state=state, tool=tool)

    def run_ended(self, run: Run) -> None:
        """Move a run to those that have ended."""
        self._runs.end(run)
        self._look_idle()

    async def drain(self, deadline_s: float) -> None:
        """Take no new runs, wait for the open ones, and end those left after `deadline_s` as `shutdown`."""
        self._draining = True
        try:
            async with asyncio.timeout(deadline_s):
                await self._idle.wait()
        except TimeoutError:
            for run in list(self._runs.open.values()):
                run.cancel(Cause.SHUTDOWN)

    def _check_arguments(self, tool: Tool, call: ToolCall) -> None:
        if tool.parameters is None or call.binary:
            # The schema speaks of JSON values; the worker checks a call with raw bytes among its arguments.
            return
        key = (tool.pool, tool.name)
        known = self._checkers.get(key)
        if known is None or known[0] is not tool.parameters:
            known = self._checkers[key] = (tool.parameters, ArgumentChecker(tool.name, tool.parameters))
        known[1].check(call.arguments)

    def _look_idle(self) -> None:
        if not self._runs.open:
            self._idle.set()


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
