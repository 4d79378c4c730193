"""Who asks, and by what right: found out by every front door, needed by everything behind it, for ownership, limits and logs.

A request's caller stands in its ASGI scope (`caller_of`) and in its ToolCall. Without authentication everybody is ANONYMOUS,
who may do everything. What the words of a scope mean is gateway/auth/scopes.py's to say; here stands what came of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

# Where the caller stands in an ASGI scope.
SCOPE_KEY: Final = "gateway.caller"


@dataclass(frozen=True, slots=True)
class Grants:
    """What a caller may do. `tools` and `pools` are names, or beginnings of names that end in `*`.

    A tool may be run where a name in `tools` admits it and one in `pools` admits its pool; an empty one of the two
    limits nothing, but with both empty no tool may be run. `metrics`: may read /metrics. `admin`: may do everything, and
    sees everybody's runs.
    """

    tools: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    metrics: bool = False
    admin: bool = False

    def may_run(self, tool: str, pool: str) -> bool:
        """Return whether a tool of this pool may be run."""
        if self.admin:
            return True
        if not self.tools and not self.pools:
            return False
        return (not self.tools or _admits(self.tools, tool)) and (not self.pools or _admits(self.pools, pool))

    def may_use(self, pool: str) -> bool:
        """Return whether some tool of this pool may be run, as far as the pool alone decides."""
        return self.admin or (_admits(self.pools, pool) if self.pools else bool(self.tools))


def _admits(names: tuple[str, ...], name: str) -> bool:
    return any(known == name or (known.endswith("*") and name.startswith(known[:-1])) for known in names)


NOTHING: Final = Grants()
ALL_TOOLS: Final = Grants(tools=("*",))
EVERYTHING: Final = Grants(admin=True)


@dataclass(frozen=True, slots=True)
class Caller:
    """`id` is the same for all requests of one caller, no two callers have the same, and it is no secret.

    `expires_at` is when what it came with expires, in Unix seconds; None: never. `ticket` is the one-time ticket that it
    came with (its number, not its text), None for everything else. `address` is where an anonymous caller's request came from,
    None where that is this machine or not known: limits tell them apart by it, and nothing else does.
    """

    id: str
    grants: Grants = ALL_TOOLS
    expires_at: float | None = None
    ticket: str | None = None
    address: str | None = field(default=None, compare=False)

    def may_see(self, owner_id: str) -> bool:
        """Return whether what belongs to the caller of that id is this one's to see."""
        return self.id == owner_id or self.grants.admin

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and time.time() >= self.expires_at


ANONYMOUS: Final = Caller("anonymous", EVERYTHING)
# Who asks for what is open to all, or has yet to say who it is: nothing is its own.
NOBODY: Final = Caller("nobody", NOTHING)


def caller_of(scope: Any) -> Caller:
    """Return who sent the request with this ASGI scope; the same one each time."""
    caller: Caller = scope.get(SCOPE_KEY, ANONYMOUS)
    if caller is ANONYMOUS and (client := scope.get("client")) is not None:
        caller = scope[SCOPE_KEY] = Caller(ANONYMOUS.id, ANONYMOUS.grants, address=client[0])
    return caller
