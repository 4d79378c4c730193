"""How many runs each caller has started within a minute, on all gateways of a log together.

Asked by runs/quotas.py ahead of a start, where the starts a minute are limited. The counting is the library `limits`', on
connections of its own to the log's server. Without an answer each gateway counts alone, which is logged once, as is the end of that.
"""

from __future__ import annotations

from typing import Any

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from gateway.runlog.shared.address import SCHEMES

TIMEOUT_S = 1.0
CONNECTIONS_LIMIT = 16

_log = structlog.get_logger("gateway.limits")


class SharedStarts:
    """The starts of one minute in the server at a URL of runlog/shared/address.py; keys begin with `prefix`."""

    def __init__(self, url: str, prefix: str) -> None:
        scheme, _, rest = url.partition("://")
        url = f"{SCHEMES[scheme]}://{rest}"
        times: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "timeout": TIMEOUT_S}
        # No second try: a start waits for the answer.
        self._pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS_LIMIT, retry=Retry(NoBackoff(), 0), **times)
        shared: Any = self._pool
        storage = RedisStorage(f"async+{url}", True, "redispy", f"{prefix}limits", connection_pool=shared)
        self._starts = MovingWindowRateLimiter(storage)
        self._answers = True

    async def hit(self, name: str, limit: int) -> tuple[bool, int, float] | None:
        """Count a start of a caller; return whether the limit allows it, what is left, and when there is more, in Unix seconds.

        None where the server does not answer.
        """
        item = RateLimitItemPerMinute(limit)
        try:
            is_allowed = await self._starts.hit(item, name)
            stats = await self._starts.get_window_stats(item, name)
        except StorageError as exc:
            if self._answers:
                _log.warning("callers' starts are counted by each gateway alone", reason=str(exc.storage_error))
            self._answers = False
            return None
        if not self._answers:
            _log.info("callers' starts are counted by all gateways together again")
        self._answers = True
        return is_allowed, stats.remaining, stats.reset_time

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()
