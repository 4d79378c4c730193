"""What a BridgeServer's failures mean: it has one status for many things, and says which in its words.

Used by bridgestream.py. What the worker behind it said stands in the message, as the worker's JSON; the code that it had is lost
there, so an exception's type decides, as for unary calls. Source: the contract's table of ExecuteStreamingTool (§5.1).
"""

from __future__ import annotations

import json

from gateway.errors import Code, GatewayError, ToolFailed
from gateway.workers.failure import code_of_type, tool_failed
from gateway.workers.worker import Worker

_REMOTE = "Remote tool execution failed: "
_LOCAL = "Tool execution failed: "
_UNREACHABLE = ("Could not get port from worker", "Worker not responding", "Failed to connect to worker")


def forgot_session(error: GatewayError) -> bool:
    """Return whether the server does not know the session: of a stream by its status, of a unary call by its text."""
    return isinstance(error, ToolFailed) and (
        error.raw == "not_found" or (error.code is Code.NOT_FOUND and error.raw.startswith("Session not found"))
    )


def in_our_words(error: GatewayError, worker: Worker, tool: str) -> GatewayError:
    """Return what a call's failure is to callers; one that was made up here stays as it is."""
    if not isinstance(error, ToolFailed):
        return error
    where = f"the BridgeServer at {worker.address}"
    text = error.raw
    if forgot_session(error):
        return GatewayError("worker-lost", f"{where} forgets its sessions as soon as they are begun")
    for prefix in (_REMOTE, _LOCAL):
        if text.startswith(prefix):
            return _the_workers(error, text.removeprefix(prefix))
    if error.error_type is not None:
        return _the_workers(error, text)
    if text.startswith(f"Tool {tool} not found"):
        return GatewayError("tool-not-found", f"{where} has no tool {tool!r}: it has to be registered there, or the pool needs a worker_id")
    if text.startswith("Streaming execution is not enabled"):
        return GatewayError("tool-not-streaming", text)
    if text.startswith("Invalid parameter"):
        return GatewayError("invalid-arguments", text)
    if text.startswith("Worker not found"):
        return GatewayError(
            "no-workers-available", f"{where} has no such worker ({text}): the pool's worker_id has to be one of its own", retry_after_s=5
        )
    if text.startswith(_UNREACHABLE):
        return GatewayError("worker-lost", f"{where} does not reach the worker: {text}")
    return error


def _the_workers(error: ToolFailed, text: str) -> ToolFailed:
    """Return the worker's own failure. `text` has its JSON, alone or within what the server prints of an error."""
    own = tool_failed(error.code, _json_in(text) or text)
    if own.code is not Code.INTERNAL or own.error_type is None:
        return own
    code = code_of_type(own.error_type)
    return own if code is Code.INTERNAL else tool_failed(code, own.raw)


def _json_in(text: str) -> str | None:
    """Return the JSON object with a type that stands in a text; None where there is none."""
    start = text.find('{"type"')
    if start < 0:
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return text[start:end]
