"""What a worker says about itself, or what the settings say in its place, and how it is asked.

Our own workers answer WorkerService/Describe; dialect.py says how others are known. Asked at the start of every
worker's life and again by its health checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from google.protobuf.message import DecodeError

from gateway.errors import Code
from gateway.rpc.worker_pb2 import AwaitStopRequest, AwaitStopResponse, DescribeRequest, WorkerDescription
from gateway.transport.base import CallFailed, Channel
from gateway.workers.options import PoolOptions
from gateway.workers.schema import SchemaUnusable, read_schema

log = structlog.get_logger("gateway.worker")

DESCRIBE = "/gateway.rpc.WorkerService/Describe"
AWAIT_STOP = "/gateway.rpc.WorkerService/AwaitStop"

DESCRIBE_REQUEST = DescribeRequest().SerializeToString()
# What an answer may take beyond the time that the worker was given to wait.
_ANSWER_GRACE_S = 5.0

# What one worker may say of itself: it is listed, checked and documented for everybody.
ANSWER_LIMIT_BYTES = 4 * 1024 * 1024
TOOLS_LIMIT = 1000
NAME_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Tool:
    """One entry of the catalogue.

    `supports_streaming` and `parameters` (a JSON Schema of type object) are None where the worker can't describe its tools.
    """

    name: str
    pool: str
    description: str = ""
    supports_streaming: bool | None = None
    parameters: dict[str, Any] | None = None
    required_variables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What a worker offers. `is_described` False: it has no WorkerService; see dialect.py for what is known of it.

    `answer` is what it was read from: an equal answer needs no second look.
    """

    concurrency: int
    tools: Mapping[str, Tool] = field(default_factory=dict)
    batches: bool = False
    is_described: bool = False
    answer: bytes = b""


# Of a worker that hasn't answered yet.
UNKNOWN = Description(concurrency=1)


async def await_stop(channel: Channel, run_id: str, timeout_s: float) -> bool:
    """Wait until the execution has really stopped; False when it hasn't after `timeout_s`, or the worker doesn't answer.

    A connection that is lost, and a worker that can't say, count as stopped: what could be waited for is gone.
    """
    request = AwaitStopRequest(run_id=run_id, timeout_ms=int(timeout_s * 1000))
    try:
        answer = await channel.unary(AWAIT_STOP, request.SerializeToString(), timeout_s=timeout_s + _ANSWER_GRACE_S)
    except CallFailed as exc:
        return exc.status.code is not Code.DEADLINE_EXCEEDED
    try:
        return AwaitStopResponse.FromString(answer).stopped
    except DecodeError:
        return True


def read_description(answer: bytes, options: PoolOptions) -> Description:
    """Return what a worker's answer to Describe says.

    Raises:
        ValueError: it makes no sense, or is more than one worker may say.
    """
    if len(answer) > ANSWER_LIMIT_BYTES:
        raise ValueError(f"its description has {len(answer)} bytes, the limit is {ANSWER_LIMIT_BYTES}")
    try:
        said = WorkerDescription.FromString(answer)
    except DecodeError as exc:
        raise ValueError("its description can't be decoded") from exc
    if len(said.tools) > TOOLS_LIMIT:
        raise ValueError(f"it describes {len(said.tools)} tools, the limit is {TOOLS_LIMIT}")
    tools = {
        tool.name: Tool(
            name=tool.name,
            pool=options.name,
            description=tool.description,
            supports_streaming=tool.supports_streaming,
            parameters=_schema(options.name, tool.name, tool.parameters_schema),
            required_variables=tuple(tool.required_variables),
        )
        for tool in said.tools
        if is_name(options.name, tool.name)
    }
    return Description(said.concurrency or options.concurrency, tools, said.batches, is_described=True, answer=answer)


def is_name(pool: str, name: str) -> bool:
    """Whether a tool can be called by this name: it stands in paths, lists and logs."""
    if 0 < len(name) <= NAME_LIMIT and name.isprintable() and "/" not in name:
        return True
    log.warning("a tool's name can't be used", pool=pool, tool=name[:40])
    return False


def _schema(pool: str, tool: str, text: str) -> dict[str, Any] | None:
    """The schema, or None where the worker sent none that can be used: the tool then takes any JSON object."""
    try:
        return read_schema(text)
    except SchemaUnusable as exc:
        log.warning("a tool's schema can't be used: it takes any arguments", pool=pool, tool=tool, reason=str(exc))
        return None
