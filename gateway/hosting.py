"""What workers find in the gateway that started them: Snakepit's a host, our own the host tools; app.py's part for both.

Listens from before the first worker until after the last. How the workers of a pool are spoken to depends on that, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from gateway.configured import configured_pools
from gateway.host.listener import Host
from gateway.hosttools.listener import HostToolsListener
from gateway.hosttools.loading import HostToolsNotLoaded
from gateway.hosttools.toolbox import Toolbox
from gateway.settings import Settings, SettingsError, is_public_address
from gateway.workers.bridge import BridgeDialect
from gateway.workers.dialect import Speak, WorkerDialect
from gateway.workers.options import PoolOptions
from gateway.workers.snakepit import SnakepitDialect, check_concurrency

_log = structlog.get_logger("gateway")


class Hosting:
    """See the module. `tools` None: there are no host tools."""

    def __init__(self, settings: Settings) -> None:
        """Load the host tools.

        Raises:
            SettingsError: one can't be loaded.
        """
        try:
            host, targets = settings.host, settings.host_tools
            self.tools = Toolbox(targets, timeout_s=host.tool_timeout_s, at_once=host.tools_at_once) if targets else None
        except HostToolsNotLoaded as exc:
            raise SettingsError(str(exc)) from exc
        self._listener = None if self.tools is None else HostToolsListener(self.tools)
        self._address = settings.host.address
        # What Snakepit's workers take for their host; it listens where there is a pool of them.
        self.host = Host(self._address, self.tools)

    @asynccontextmanager
    async def run(self, pools: Iterable[PoolOptions]) -> AsyncIterator[None]:
        """Listen for what the workers of these pools ask.

        Raises:
            OSError: an address can't be bound.
        """
        try:
            if self._listener is not None:
                await self._listener.start()
            await self.admit(pools)
            yield
        finally:
            await self.host.stop()
            if self._listener is not None:
                await self._listener.stop()

    async def admit(self, pools: Iterable[PoolOptions]) -> None:
        """Listen for Snakepit's workers where there are any in these pools, if that isn't so yet.

        Raises:
            OSError: the address can't be bound.
        """
        if any(pool.kind == "snakepit" for pool in pools):
            try:
                await self.host.start()
            except OSError as exc:
                _log.error("can't listen", host_address=self._address, reason=str(exc))
                raise
            if is_public_address(self._address):
                _log.warning("other machines can reach the host for Snakepit workers, in plaintext", address=self._address)

    def pools(self, settings: Settings) -> list[PoolOptions]:
        """Return what the pools are told."""
        return configured_pools(settings, None if self._listener is None else self._listener.address)

    def speak(self, options: PoolOptions) -> Speak:
        """Return how the workers of a pool are spoken to."""
        if options.kind == "bridge":
            return BridgeDialect
        if options.kind != "snakepit":
            return WorkerDialect
        if (reason := check_concurrency(options)) is not None:
            _log.warning("a pool's concurrency is too high", pool=options.name, reason=reason)
        return partial(SnakepitDialect, self.host)

    async def prepare(self, settings: Settings) -> Callable[[], None]:
        """Load the host tools of other settings, or the same anew, and return what puts them in place.

        Raises:
            SettingsError: one can't be loaded; nothing was changed.
        """
        if self.tools is None:
            # What workers are told when they start: tools that come later need a restart.
            return lambda: None
        try:
            # In a thread: no stream waits for somebody's imports.
            return await asyncio.to_thread(self.tools.prepare, settings.host_tools)
        except HostToolsNotLoaded as exc:
            raise SettingsError(str(exc)) from exc
