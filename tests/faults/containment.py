"""What every fault is held to: others don't notice, nothing stays behind, and what was broken works again without help."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tests.e2e.harness import Served
from tests.faults.bystanders import PATIENCE_S, Bystanders, bystanders
from tests.faults.leaks import MEMORY_SLACK_BYTES, leaves_nothing


@contextlib.asynccontextmanager
async def contained(
    gateway: Served, *, patience_s: float = PATIENCE_S, memory_slack_bytes: int = MEMORY_SLACK_BYTES
) -> AsyncIterator[Bystanders]:
    """Let a fault happen in the block; see bystanders.py and leaks.py for what is asserted around it."""
    async with leaves_nothing(gateway, memory_slack_bytes=memory_slack_bytes), bystanders(gateway, patience_s=patience_s) as others:
        yield others
