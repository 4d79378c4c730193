"""What tools there are: the pools' tools, in the pools' order. Also the methods of gRPC services, which are tools to a run.

Read by runs/ for every request and by the endpoints for the list. It holds nothing itself, so it is true at
any moment: a worker that restarts with other tools changes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

from gateway.call import is_rpc
from gateway.errors import GatewayError
from gateway.workers.description import Tool
from gateway.workers.pool import Pool

__all__ = ["Catalog", "Tool"]

# Inside the class, `list` is its method.
Tools = list[Tool]

# The kind of a pool that stands for a gRPC service.
RPC = "rpc"

# Names listed in an error's text.
_NAMES_LIMIT = 20


class Catalog:
    """The tools of all pools. Where two pools offer the same name, the first one's is meant unless a pool is named."""

    def __init__(self, pools: Collection[Pool]) -> None:
        # Theirs who made it: pools come and go.
        self._pools = pools

    def find(self, tool: str, pool: str | None = None) -> Tool:
        """Return the tool of that name, in `pool` or else in the first pool that has it.

        A name with a slash is a method of a gRPC service, and only services have those.

        Raises:
            GatewayError: `pool-not-found`, `tool-not-found`, `rpc-not-found` (all say what there is), or `no-workers-available`
                while a pool that might have it has never had a worker to ask.
        """
        rpc = is_rpc(tool)
        pools = [candidate for candidate in (self._pools if pool is None else (self._pool(pool),)) if (candidate.kind == RPC) is rpc]
        for candidate in pools:
            found = candidate.tools.get(tool)
            if found is not None:
                return found
        for candidate in pools:
            if not candidate.tools and not (rpc and not candidate.readiness()):
                reasons = (
                    "; ".join(reason.partition("\n")[0] for reason in candidate.readiness()) or f"pool {candidate.name} offers no tools"
                )
                noun = "method" if rpc else "tool"
                raise GatewayError(
                    "no-workers-available", f"it is not known yet whether there is a {noun} {tool!r}: {reasons}", retry_after_s=2
                )
        where = "" if pool is None else f" in pool {pool!r}"
        if rpc:
            raise GatewayError("rpc-not-found", _unknown_rpc(tool[:200], where, [found.name for found in self._of(pools)]))
        raise GatewayError("tool-not-found", _unknown(f"there is no tool {tool!r}{where}", tool, (t.name for t in self._of(pools))))

    def list(self) -> Tools:
        """Return every tool that `find` finds without a pool's name, in the pools' order, by name within a pool; no methods."""
        return self._of(pool for pool in self._pools if pool.kind != RPC)

    def methods(self) -> Tools:
        """Return every method of a gRPC service, in the same order."""
        return self._of(pool for pool in self._pools if pool.kind == RPC)

    def services(self) -> Tools:
        """Return one method of each service's pool that has any: enough to see whether what they offer has changed."""
        return [next(iter(pool.tools.values())) for pool in self._pools if pool.kind == RPC and pool.tools]

    def _pool(self, name: str) -> Pool:
        for pool in self._pools:
            if pool.name == name:
                return pool
        raise GatewayError("pool-not-found", _unknown(f"there is no pool {name!r}", name, (pool.name for pool in self._pools)))

    def _of(self, pools: Iterable[Pool]) -> Tools:
        tools: dict[str, Tool] = {}
        for pool in pools:
            for name in sorted(pool.tools):
                tools.setdefault(name, pool.tools[name])
        return [*tools.values()]


def _unknown_rpc(name: str, where: str, known: Sequence[str]) -> str:
    """The sentence on a method that isn't there: its service has others, or there is none of that name."""
    service, _, method = name.partition("/")
    siblings = [other.partition("/")[2] for other in known if other.startswith(f"{service}/")]
    if siblings:
        return _unknown(f"service {service} has no method {method!r}", method, siblings)
    services = dict.fromkeys(other.partition("/")[0] for other in known)
    return _unknown(f"there is no service {service!r}{where}", service, services)


def _unknown(sentence: str, name: str, names: Iterable[str]) -> str:
    """The sentence, with the nearest name where one is near, and the names there are."""
    known = [*names]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    more = f" and {len(known) - _NAMES_LIMIT} more" if len(known) > _NAMES_LIMIT else ""
    return f"{sentence}{hint} there are: {', '.join(known[:_NAMES_LIMIT])}{more}"
