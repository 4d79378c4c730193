"""An ExecuteToolRequest as the ToolCall that it asks for: its parameters, its time, its correlation, its caller.

Used by service.py for streams and unary calls. Parameters are raw JSON in an Any, as Snakepit's host sends them, or wrapper
messages that their type URLs name. A tool that the session registered stays with the worker it was registered for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any as JsonValue
from urllib.parse import unquote

import grpc
from google.protobuf.any_pb2 import Any

from gateway.bridge.authentication import current_caller
from gateway.call import ToolCall
from gateway.caller import ANONYMOUS
from gateway.codec import values
from gateway.correlation import from_metadata
from gateway.errors import GatewayError
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.runs.hub import Hub
from gateway.sessions import Session, session_key

Context = grpc.aio.ServicerContext[JsonValue, JsonValue]

_TIMEOUT_MS = re.compile(r"0*[1-9][0-9]{0,11}")


class CallReader:
    """Reads calls. `timeout_s` is the budget of one that names none, `timeout_limit_s` the most that one may name."""

    def __init__(self, hub: Hub, timeout_s: float, timeout_limit_s: float) -> None:
        self._hub = hub
        self._timeout_s = timeout_s
        self._timeout_limit_s = timeout_limit_s

    def read(self, request: pb.ExecuteToolRequest, context: Context, session: Session, *, streaming: bool) -> ToolCall:
        """Return the call. The time is `timeout_ms` of the metadata, else the client's deadline, else the default.

        Raises:
            GatewayError: `invalid-body`, a parameter is not JSON; `internal`, the session's tool is registered for a worker that
                isn't ours. Both in Snakepit's words.
        """
        metadata = {name: value for name, value in request.metadata.items() if not name.startswith("binary_format:")}
        wanted = metadata.pop("timeout_ms", "")
        timeout_s = int(wanted) / 1000 if _TIMEOUT_MS.fullmatch(wanted) else self._timeout_s
        remaining_s = context.time_remaining()
        if remaining_s is not None:
            timeout_s = min(timeout_s, max(remaining_s, 0.001))
        arguments = parameters(request.parameters)
        # A packed BytesValue is raw bytes, for which JSON has no word.
        raw = {name: value for name, value in arguments.items() if isinstance(value, bytes)}
        correlation = from_metadata(context.invocation_metadata() or (), request.metadata)
        # Where a tool finds it behind Snakepit's BridgeServer.
        metadata["correlation_id"] = correlation.request_id
        pool, worker_id = self._place(session, request.tool_name)
        caller = current_caller()
        if caller is ANONYMOUS:
            caller = replace(caller, address=_address(context.peer()))
        return ToolCall(
            tool=request.tool_name,
            arguments={name: value for name, value in arguments.items() if name not in raw},
            timeout_s=min(timeout_s, self._timeout_limit_s),
            streaming=streaming,
            session_id=session_key(request.session_id, caller.id),
            pool=pool,
            metadata=metadata,
            correlation=correlation,
            binary={**raw, **request.binary_parameters},
            caller=caller,
            worker_id=worker_id,
        )

    def _place(self, session: Session, tool: str) -> tuple[str | None, str | None]:
        """Return the pool and the worker that a registered tool belongs to; for a tool of the catalogue neither is said."""
        registered = session.tools.get(tool)
        if registered is None:
            return None, None
        for pool in self._hub.pools.values():
            if any(worker["id"] == registered.worker_id for worker in pool.snapshot()["workers"]):
                return pool.name, registered.worker_id
        raise GatewayError("internal", f"Worker not found: {registered.worker_id}")


def parameters(packed: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return parameters by name: JSON values, and bytes for a packed BytesValue.

    Raises:
        GatewayError: `invalid-body`, in Snakepit's words, for the first that can't be read.
    """
    decoded = {}
    for name, parameter in packed.items():
        try:
            decoded[name] = values.unpack_value(parameter)
        except (ValueError, RecursionError) as exc:
            string_value = parameter.type_url.endswith("google.protobuf.StringValue")
            detail = f'Invalid parameter {name}: "{exc}"' if string_value else f"Invalid parameter {name} ({parameter.type_url}): {exc}"
            raise GatewayError("invalid-body", detail) from exc
    return decoded


def _address(peer: str) -> str | None:
    """Return the address of a peer as gRPC names it: `ipv4:10.0.0.7:5123`, `ipv6:%5B::1%5D:5123`, `unix:`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else None
