"""A BridgeServer as an upstream: a real Snakepit's, or another gateway's gRPC front door. The dialect of kind `bridge`.

It is no worker: it has sessions, in which tools are registered, and workers of its own behind them, whose capacity is theirs to
know; `concurrency` bounds what we send it. Calls are in their caller's session, those without one share one of the pool's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping

from gateway.call import ToolCall
from gateway.transport.base import Channel
from gateway.workers.description import Description
from gateway.workers.dialect import Dialect
from gateway.workers.options import PoolOptions
from gateway.workers.upstreamsessions import UpstreamSessions


class BridgeDialect(Dialect):
    """One BridgeServer."""

    def __init__(self, options: PoolOptions, worker_id: str) -> None:
        super().__init__(options, worker_id)
        # No other gateway's: each ends its own.
        self._shared = f"gateway_{worker_id}_{secrets.token_hex(8)}"
        self.sessions = self._sessions = UpstreamSessions(options, f"the BridgeServer of {worker_id}")

    def attend(self, channel: Channel, tasks: asyncio.TaskGroup) -> None:
        self._sessions.attend(channel, tasks)

    def detach(self) -> None:
        self._sessions.detach()

    async def leave(self, channel: Channel) -> None:
        await self._sessions.end_all(channel)

    def forget_session(self, session_id: str) -> None:
        self._sessions.over(session_id)

    def session_id(self, call: ToolCall, description: Description) -> str:
        return call.session_id or self._shared

    def metadata(self, call: ToolCall, timeout_s: float) -> Mapping[str, str]:
        """Of all that is here, a BridgeServer of Snakepit's reads these two and passes on the second."""
        told = {"timeout_ms": str(max(1, int(timeout_s * 1000)))}
        if call.correlation.request_id:
            told["correlation_id"] = call.correlation.request_id
        return {**call.metadata, **told}
