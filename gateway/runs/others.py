"""What the hub asks of the other gateways on its log; shared.py answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.call import ToolCall
from gateway.caller import Caller
from gateway.runs.idempotency import Claim
from gateway.runs.policy import RunPolicy
from gateway.runs.source import RunSource


class OtherGateways(Protocol):
    """The runs of all gateways on one log (shared.py); each method as the hub's of that name.

    Of sessions: `touch_session` makes one known to all, or says that it is in use, and returns when it was made, in Unix seconds,
    and its metadata; `find_session` returns that, or None where none knows it; `end_session` forgets it everywhere.
    """

    @property
    def available(self) -> bool:
        """Whether the log can be used now."""

    @property
    def followed(self) -> Sequence[RunSource]:
        """The runs of other gateways that somebody reads here."""

    async def touch_session(self, session_id: str, metadata: Mapping[str, str] | None = None) -> tuple[float, Mapping[str, str]]: ...

    async def find_session(self, session_id: str) -> tuple[float, Mapping[str, str]] | None: ...

    async def end_session(self, session_id: str) -> bool: ...

    async def start(self, call: ToolCall, policy: RunPolicy, claim: Claim | None = None) -> RunSource: ...

    async def look_up(self, run_id: str, caller: Caller) -> RunSource: ...

    async def cancel(self, run: RunSource) -> RunSource: ...

    async def list(
        self, caller: Caller, *, limit: int, after: str | None, state: str | None, tool: str | None
    ) -> tuple[Sequence[RunSource], str | None]: ...

    async def use_ticket(self, ticket: str, ttl_s: float) -> bool:
        """Note that a one-time ticket is used; False: it was used before, on whatever gateway."""
