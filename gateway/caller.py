"""Who asks, as every front door finds out and everything behind it needs to know: for ownership, limits and logs.

A request's caller stands in its ASGI scope (`caller_of`) and in its ToolCall. Without authentication everybody is ANONYMOUS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Where the caller stands in an ASGI scope.
SCOPE_KEY: Final = "gateway.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """`id` is the same for all requests of one caller, no two callers have the same, and it is no secret.

    `address` is where an anonymous caller's request came from, None where that is this machine or not known: limits tell them
    apart by it, and nothing else does.
    """

    id: str
    address: str | None = field(default=None, compare=False)


ANONYMOUS: Final = Caller("anonymous")


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Return who sent the request with this ASGI scope."""
    caller: Caller = scope.get(SCOPE_KEY, ANONYMOUS)
    if caller is ANONYMOUS and (client := scope.get("client")) is not None:
        return Caller(ANONYMOUS.id, client[0])
    return caller
