"""SIGHUP: the settings are read again, and what differs is applied to the running gateway without cutting a stream.

Run in the Gateway's root group; the server calls `ask` on the signal. Settings that can't be used change nothing. Each part of
the gateway that can take other settings says so in `Gateway.reloads`; whatever differs besides is named in the log and needs a
restart. Reloads follow each other, and one that is asked for meanwhile comes after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from gateway.settings import Section, Settings, SettingsError

if TYPE_CHECKING:
    from gateway.app import Gateway

_log = structlog.get_logger("gateway.reload")


class Reload:
    """The reloads of one gateway. `load` reads the settings as at the start: the same command line, the file and the environment."""

    def __init__(self, gateway: Gateway, load: Callable[[], Settings]) -> None:
        self._gateway = gateway
        self._load = load
        # What is in force where nothing can be reloaded.
        self._started_with = gateway.settings
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have the settings reloaded; returns at once."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever that is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if self._gateway.hub.leaving:
                _log.warning("not reloaded: the gateway is shutting down")
                continue
            try:
                await self.now()
            except Exception:
                _log.exception("a reload failed")

    async def now(self) -> None:
        """Reload."""
        gateway = self._gateway
        try:
            # In a thread: no stream waits for a file.
            settings = await asyncio.to_thread(self._load)
        except SettingsError as exc:
            _log.error("not reloaded: the settings can't be used, nothing was changed", reason=str(exc))
            return
        changed = differences(gateway.settings, settings)
        try:
            take_keys = None if gateway.access is None else gateway.access.prepare(settings.auth)
            gateway.reload_certificates()
            take_host_tools = await gateway.hosting.prepare(settings)
            # A coroutine: it begins below, once everything was found to be usable.
            change_of_pools = gateway.change_pools(settings)
        except SettingsError as exc:
            _log.error("not reloaded: the settings can't be used, nothing was changed", reason=str(exc))
            return
        gateway.settings = settings
        take_host_tools()
        if take_keys is not None:
            # Whatever the settings say: their file may be another.
            take_keys()
        for name, apply in gateway.reloads.items():
            if any(is_part(setting, name) for setting in changed):
                apply(settings)
        await change_of_pools
        _log.info("reloaded", changed=[setting for setting in changed if self._can_reload(setting)])
        if stale := [setting for setting in differences(self._started_with, settings) if not self._can_reload(setting)]:
            _log.warning("needs a restart", settings=stale)

    def _can_reload(self, setting: str) -> bool:
        return setting in ("pools", "services") or any(is_part(setting, name) for name in self._gateway.reloads)


def differences(old: Settings, new: Settings) -> list[str]:
    """Return the names of the settings that differ: `server.port`, `pools`."""
    names = []
    for name in Settings.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(after, Section):
            names += [f"{name}.{key}" for key in type(after).model_fields if getattr(before, key) != getattr(after, key)]
        elif before != after:
            names.append(name)
    return names


def is_part(setting: str, name: str) -> bool:
    """Return whether a setting is the one of that name, or one of the section of that name."""
    return setting == name or setting.startswith(f"{name}.")
