"""How long to wait before the next try: random, so that many gateways don't come back in step, and bounded."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Waits between tries. A connection that held for longer than the longest wait makes it begin anew."""

    __slots__ = ("_ceiling_s", "_max_s", "_min_s", "_waited_at")

    def __init__(self, min_s: float, max_s: float) -> None:
        self._min_s = min_s
        self._max_s = max_s
        self._ceiling_s = min_s
        self._waited_at: float | None = None

    async def wait(self) -> None:
        """Sleep for between half and all of a time that doubles with every try, up to the longest."""
        loop = asyncio.get_running_loop()
        if self._waited_at is not None and loop.time() - self._waited_at > self._max_s:
            self._ceiling_s = self._min_s
        await asyncio.sleep(self._ceiling_s * random.uniform(0.5, 1.0))
        self._ceiling_s = min(self._ceiling_s * 2, self._max_s)
        self._waited_at = loop.time()
