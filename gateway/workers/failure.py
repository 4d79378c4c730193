"""What a worker's bad ending means: a gRPC status, or an answer with success=false, as a GatewayError.

toolstream calls it once for each call that didn't end well. A worker reports a Python exception as a JSON
object {type, message, traceback, …} in the status message: then the *tool* failed, whatever the code. A
status without one was made up on the way, and says something about the worker or the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.errors import Code, FieldError, GatewayError, ToolFailed
from gateway.transport.base import CallStatus

# Snakepit's unary answer has no code; the exception's name is all there is to go by.
_CODE_OF_TYPE: Mapping[str, Code] = {
    "ValueError": Code.INVALID_ARGUMENT,
    "FileNotFoundError": Code.NOT_FOUND,
    "PermissionError": Code.PERMISSION_DENIED,
    "NotImplementedError": Code.UNIMPLEMENTED,
    "TimeoutError": Code.DEADLINE_EXCEEDED,
    "MemoryError": Code.RESOURCE_EXHAUSTED,
}


def status_error(status: CallStatus, worker_id: str, timeout_s: float) -> GatewayError | None:
    """Return the error that a call's status stands for; None for OK."""
    if status.code is Code.OK:
        return None
    if status.connection_lost:
        return GatewayError("worker-lost", f"the connection to worker {worker_id} was lost: {status.message}")
    if _detail(status.message) is not None:
        return tool_failed(status.code, status.message)
    if status.code is Code.DEADLINE_EXCEEDED:
        return GatewayError("worker-timeout", f"the tool was still running on worker {worker_id} after {timeout_s:g} s")
    if status.code is Code.RESOURCE_EXHAUSTED and ("limit" in status.message or "larger than" in status.message):
        return GatewayError("chunk-too-large", f"worker {worker_id}: {status.message}")
    if status.code in (Code.UNAVAILABLE, Code.CANCELLED):  # nobody here cancelled it: the worker is stopping
        return GatewayError("worker-lost", f"worker {worker_id} gave the call up: {status.message or status.code.name}")
    return tool_failed(status.code, status.message)


def answer_error(error_message: str, metadata: Mapping[str, str]) -> ToolFailed:
    """Return the error of a unary answer with success=false.

    The code is the one that our own workers put into the metadata, else it is guessed from the exception's type.
    """
    detail = _detail(error_message) or {}
    code = Code.__members__.get(metadata.get("error_code", "")) or code_of_type(str(detail.get("type")))
    return tool_failed(code, error_message)


def code_of_type(error_type: str) -> Code:
    """Return the code of an exception of which only the type's name is known."""
    return _CODE_OF_TYPE.get(error_type, Code.INTERNAL)


def tool_failed(code: Code, text: str) -> ToolFailed:
    """Return the failure that a status message describes: its JSON detail where there is one, else the text itself."""
    detail = _detail(text)
    if detail is None:
        return ToolFailed(code, text or f"the tool ended with {code.name}", raw=text)
    traceback = detail.get("traceback") or "".join(map(str, detail.get("stacktrace") or ())) or None
    error_type = str(detail["type"])
    error = ToolFailed(
        code,
        str(detail.get("message") or error_type),
        error_type=error_type,
        traceback=None if traceback is None else str(traceback),
        details=detail.get("details"),
        raw=text,
    )
    fields = detail.get("errors")
    if isinstance(fields, list):
        error.errors = tuple(_field_error(entry) for entry in fields if isinstance(entry, dict))
    return error


def was_told(status: CallStatus) -> bool:
    """Whether the worker itself ended the call, so that its execution is known to be over."""
    return status.code is Code.OK or (not status.connection_lost and _detail(status.message) is not None)


def _detail(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        detail = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return detail if "type" in detail else None


def _field_error(entry: dict[str, Any]) -> FieldError:
    return FieldError(str(entry.get("field", "")), str(entry.get("detail") or entry.get("reason") or entry.get("message") or ""))
