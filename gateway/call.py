"""One request to execute a tool, as every front door hands it to runs/ and runs/ to workers/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Protocol, final

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


def is_rpc(tool: str) -> bool:
    """Return whether a name is that of a gRPC service's method, `package.Service/Method`; no tool's name has a slash."""
    return "/" in tool


class AnswerCodec(Protocol):
    """What makes JSON of a method's answers: of all of each (codec/protojson), or of a part (services/binding.py)."""

    def to_json(self, message: bytes) -> bytes:
        """Return a message from the wire as JSON text.

        Raises:
            GatewayError: `unreadable-answer`.
        """

    def to_json_all(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return a batch of messages as JSON texts, in order. Raises as `to_json` does."""


class MessageFeed(Protocol):
    """What a call with many request messages is given them by (services/feed.py)."""

    def attach(self, call: Any) -> None:
        """Give the call, a transport's DuplexCall, what there is and all that comes."""

    def sendable(self) -> None:
        """Hear that the call has room for more."""

    def close(self) -> None:
        """Hear that the call is over."""


@final
class RpcRequest(Value):
    """What a call of a gRPC service's method sends: its request message as it goes on the wire, and metadata.

    `answers` makes JSON of what comes; None: the method's own. With a `feed` there is no `message`: they come one by one.
    """

    __slots__ = ("message", "metadata", "answers", "feed")  # noqa: RUF023

    def __init__(
        self,
        message: bytes,
        metadata: Sequence[tuple[str, str]] = (),
        answers: AnswerCodec | None = None,
        feed: MessageFeed | None = None,
    ) -> None:
        self.message = message
        self.metadata = metadata
        self.answers = answers
        self.feed = feed


@final
class ToolCall(Value):
    """A tool, its checked arguments, and where and how long it may run.

    `arguments` holds JSON values; `binary` raw bytes that replace an argument of the same name. `timeout_s` is
    the budget of the whole run, queue included. `metadata` reaches the adapter as its session context's
    `request_metadata`. `pool` and `affinity` None: the tool's pool and that pool's own setting. `worker_id`: only on that worker.
    `rpc`: the tool is a gRPC service's method, and this is what is sent; None: `arguments` are, once they are made a message.
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
        "rpc",
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
        rpc: RpcRequest | None = None,
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
        self.rpc = rpc
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
