"""One request to execute a tool, as every front door hands it to runs/ and runs/ to workers/."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, final

from gateway.caller import ANONYMOUS, Caller
from gateway.correlation import UNCORRELATED, Correlation, Trace
from gateway.value import Value

# The mapping that is empty, and stays so.
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Affinity(StrEnum):
    """What a session's tie to its worker is worth when that worker is busy (HINT: take another) or gone.

    STRICT_QUEUE waits for the busy worker, STRICT_FAIL_FAST is refused with `worker-busy`; with either, a
    worker that is gone is `session-worker-unavailable`.
    """

    HINT = "hint"
    STRICT_QUEUE = "strict_queue"
    STRICT_FAIL_FAST = "strict_fail_fast"


@final
class ToolCall(Value):
    """A tool, its checked arguments, and where and how long it may run.

    `arguments` holds JSON values; `binary` raw bytes that replace an argument of the same name. `timeout_s` is
    the budget of the whole run, queue included. `metadata` reaches the adapter as its session context's
    `request_metadata`. `pool` and `affinity` None: the tool's pool and that pool's own setting. `worker_id`: only on that worker.
    `caller` is who asked, `correlation` what ties the run to other systems' records; `trace` hears what becomes of it, None: nobody does.
    """

    __slots__ = (  # noqa: RUF023
        "tool",
        "arguments",
        "timeout_s",
        "streaming",
        "session_id",
        "pool",
        "affinity",
        "metadata",
        "binary",
        "caller",
        "correlation",
        "trace",
        "worker_id",
    )

    def __init__(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        timeout_s: float,
        streaming: bool = True,
        session_id: str | None = None,
        pool: str | None = None,
        affinity: Affinity | None = None,
        metadata: Mapping[str, str] = NOTHING,
        binary: Mapping[str, bytes] = NOTHING,
        caller: Caller = ANONYMOUS,
        correlation: Correlation = UNCORRELATED,
        trace: Trace | None = None,
        worker_id: str | None = None,
    ) -> None:
        self.tool = tool
        self.arguments = arguments
        self.timeout_s = timeout_s
        self.streaming = streaming
        self.session_id = session_id
        self.pool = pool
        self.affinity = affinity
        self.metadata = metadata
        self.binary = binary
        self.caller = caller
        self.correlation = correlation
        self.trace = trace
        self.worker_id = worker_id

    def bare(self) -> ToolCall:
        """Return the call without what it carried: what is worth keeping of one that is over."""
        return ToolCall(
            self.tool,
            NOTHING,
            self.timeout_s,
            self.streaming,
            self.session_id,
            self.pool,
            caller=self.caller,
            correlation=self.correlation,
        )
