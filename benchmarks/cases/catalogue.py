"""All cases, by the names that the command line takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.cases import cancel, idle, paced, rpc, shared, short, stall, throughput, tool
from benchmarks.cases.stage import Figures, Stage
from benchmarks.peers.target import Envoy
from benchmarks.targets import Gateway, Served, Stand, Target


def _serving(target: Target, stand: Stand) -> AbstractContextManager[Served]:
    return target.serving(stand)


def _as_it_is(target: Target) -> Target:
    return target


@dataclass(frozen=True, slots=True)
class Case:
    """One load. `group` is a second name, for several cases at once. `played_by` returns what a target plays it as."""

    name: str
    measure: Callable[[Stage], Awaitable[Figures]]
    gateway_only: bool = False
    group: str = ""
    warm_up: Callable[[Stage], Awaitable[None]] = Stage.warm_up
    serving: Callable[[Target, Stand], AbstractContextManager[Served]] = _serving
    transcoders_only: bool = False
    played_by: Callable[[Target], Target] = _as_it_is

    def takes(self, target: Target) -> bool:
        """Return whether the target can be asked this."""
        if self.transcoders_only:
            return isinstance(target, Gateway | Envoy)
        return not self.gateway_only or isinstance(target, Gateway)


CASES = (
    Case("one", throughput.one),
    Case("many", throughput.many),
    Case("big", throughput.big),
    Case("paced", paced.paced),
    Case("short", short.short),
    Case("idle", idle.idle),
    Case("cancel", cancel.cancel),
    Case("stall", stall.stall),
    Case("ws-one", throughput.ws_one, gateway_only=True, group="ws"),
    Case("ws-paced", paced.ws_paced, gateway_only=True, group="ws"),
    Case("shared-one", throughput.one, gateway_only=True, group="shared", serving=shared.serving),
    Case("shared-paced", paced.paced, gateway_only=True, group="shared", serving=shared.serving),
    Case("shared-short", short.short, gateway_only=True, group="shared", serving=shared.serving),
    Case("rpc-one", throughput.one, group="rpc", transcoders_only=True, played_by=rpc.transcoding),
    Case("rpc-paced", paced.paced, group="rpc", transcoders_only=True, played_by=rpc.transcoding),
    Case("tool", tool.tool, gateway_only=True, warm_up=tool.warm_up, serving=tool.serving),
)


def chosen(names: str) -> list[Case]:
    """Return the cases of a comma-separated list, `all` for all, in their order.

    Raises:
        ValueError: a name is unknown.
    """
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    known = {case.name for case in CASES} | {case.group for case in CASES if case.group}
    unknown = wanted - known - {"all"}
    if unknown:
        raise ValueError(f"unknown case {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}, all")
    return [case for case in CASES if "all" in wanted or case.name in wanted or case.group in wanted]
