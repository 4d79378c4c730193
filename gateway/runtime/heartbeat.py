"""How a worker keeps in touch with its Snakepit host: the settings of the heartbeat and its loop.

The settings come from the command line and, above it, from the JSON object in SNAKEPIT_HEARTBEAT_CONFIG. One
loop runs for each session the worker serves (host.py bounds their number). A dependent worker gives up when
`max_missed` beats in a row fail.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """Snakepit's names and defaults. `dependent`: the worker ends when the host is lost."""

    enabled: bool = True
    interval_ms: int = 2000
    timeout_ms: int = 10_000
    max_missed_heartbeats: int = 3
    initial_delay_ms: int = 0
    jitter_ms: int = 0
    dependent: bool = True

    def overridden(self, text: str) -> HeartbeatSettings:
        """Return these settings with those of a JSON object on top; keys in snake_case or camelCase, unknown ones ignored.

        Raises:
            ValueError: it is not a JSON object, or a value is of the wrong kind.
        """
        given = json.loads(text)
        if not isinstance(given, Mapping):
            raise ValueError("SNAKEPIT_HEARTBEAT_CONFIG must be a JSON object")
        known = {field.name for field in dataclasses.fields(self)}
        changes: dict[str, Any] = {}
        for key, value in given.items():
            name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()
            if name in known and value is not None:
                changes[name] = bool(value) if isinstance(getattr(self, name), bool) else int(value)
        return dataclasses.replace(self, **changes)


async def beat(
    settings: HeartbeatSettings, session_id: str, send: Callable[[str, float], Awaitable[bool]], lost: Callable[[], None]
) -> None:
    """Send heartbeats for one session until cancelled, or until the host is lost and `lost` was called.

    `send` takes the session and a time-out in seconds and says whether the host answered.
    """
    await asyncio.sleep(settings.initial_delay_ms / 1000)
    missed = 0
    while True:
        missed = 0 if await send(session_id, settings.timeout_ms / 1000) else missed + 1
        if missed >= settings.max_missed_heartbeats:
            logger.error("the host missed %d heartbeats of session %s", missed, session_id)
            if settings.dependent:
                lost()
                return
        await asyncio.sleep((settings.interval_ms + random.uniform(0, settings.jitter_ms)) / 1000)
