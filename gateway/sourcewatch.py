"""`gateway serve --reload`, for developers: when an adapter's code changes, its pool's workers are replaced.

Run in the Gateway's root group. Watched are the Python files in the folders of the adapters that the gateway began with. A file
that isn't Python changes nothing and is shown; one that fails when it is imported keeps the old workers, too, and the log says why.
Streams that still run on an old worker are cancelled GRACE_S after its successor serves: who develops wants to see the new code.
"""

from __future__ import annotations

import asyncio
import importlib.util
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from watchfiles import PythonFilter, awatch

from gateway.runs.policy import Cause
from gateway.workers.local import replaced
from gateway.workers.options import PoolOptions
from gateway.workers.pool import Pool

if TYPE_CHECKING:
    from gateway.app import Gateway

# What the streams on a replaced worker have to end by themselves.
GRACE_S = 2.0
# How long several saves that follow each other are one change.
SETTLE_MS = 200

_log = structlog.get_logger("gateway.sourcewatch")


class SourceWatch:
    """The watch over the adapters of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._folders = {options.name: folder for options in gateway.pool_options if (folder := adapter_folder(options)) is not None}
        # The end of the streams on the workers that are being replaced, by pool.
        self._endings: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        folders = sorted(set(self._folders.values()))
        if not folders:
            _log.warning("no adapter's file to watch")
            return
        _log.info("watching", folders=[str(folder) for folder in folders])
        async with asyncio.TaskGroup() as tasks:
            try:
                async for changes in awatch(*folders, watch_filter=PythonFilter(), step=SETTLE_MS, recursive=False):
                    self._reload(sorted({Path(path) for _, path in changes}), tasks)
            except (OSError, RuntimeError) as exc:
                # No such folder, or no more watches: no reason to take the gateway down.
                _log.error("can't watch", reason=str(exc))

    def _reload(self, files: list[Path], tasks: asyncio.TaskGroup) -> None:
        """Replace the workers of the pools that these files belong to."""
        mistakes = [mistake for file in files if (mistake := syntax_error(file)) is not None]
        for mistake in mistakes:
            _log.error("the old workers stay: a file has a mistake\n" + mistake)
        if mistakes:
            return
        changed = {file.parent for file in files}
        for name, folder in self._folders.items():
            pool = self._gateway.pools.get(name)
            if folder in changed and pool is not None and pool.options.starts_processes:
                _log.info("code changed: replacing workers", pool=name, files=[file.name for file in files], streams_end_after_s=GRACE_S)
                if name in self._endings:
                    self._endings[name].cancel()
                self._endings[name] = tasks.create_task(self._renew(pool), name=f"new code for pool {name}")

    async def _renew(self, pool: Pool) -> None:
        """Replace a pool's workers, and cancel what still runs on them when their successors have served for a moment."""
        hub = self._gateway.hub
        running = [run for run in hub.known_runs if run.ended is None and run.pool == pool.name and run.worker_id is not None]
        for worker in pool.renew(pool.options):
            await replaced(worker)
        await asyncio.sleep(GRACE_S)
        for run in running:
            if run.ended is None:
                run.cancel(Cause.RELOAD)


def adapter_folder(options: PoolOptions) -> Path | None:
    """Return the folder of the adapter of a pool that starts processes; None for a pool without one, or where it can't be found."""
    if options.adapter is None:
        return None
    target, _, rest = options.adapter.partition(":")
    if target.endswith(".py"):
        return Path(target).resolve().parent
    module = target if rest else target.rpartition(".")[0]
    # Where a worker looks first; this process need not.
    for first in (*(Path(word).parent for word in options.command if word.endswith(".py")), Path(options.pythonpath or Path.cwd())):
        path = Path(first, *module.split("."))
        if (path / "__init__.py").is_file():
            return path.resolve()
        if path.with_suffix(".py").is_file():
            return path.parent.resolve()
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent


def syntax_error(file: Path) -> str | None:
    """Return what is wrong with a file that can't be compiled, with the line and a mark; None for a good one, or one that is gone."""
    try:
        compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as exc:
        return "".join(traceback.format_exception_only(exc)).rstrip()
    except OSError:
        return None
    return None
