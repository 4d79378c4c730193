"""The JSON objects that events become, the same in every format; used by sse, ndjson and websocket.

Source: docs of the protocol, section 2 (the table of events).
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import ToolFailed
from gateway.events import Ended, Gap, Started, Status


def started(event: Started) -> dict[str, Any]:
    """Return `start`: the run, its tool, the policy in force and the links; `resumed` and `from` on a re-attach."""
    document = {"run": event.run, "tool": event.tool, **event.details}
    if event.resumed_from is not None:
        document |= {"resumed": True, "from": event.resumed_from}
    return document


def status(event: Status) -> dict[str, Any]:
    """Return `status`: the state and what is known about it."""
    return {"state": event.state, **event.details}


def gap(event: Gap) -> dict[str, Any]:
    """Return `gap`: the first and last chunk number that can't be delivered, and why."""
    return {"from": event.first, "to": event.last, "reason": event.reason}


def ended(event: Ended, instance: str, *, debug: bool = False) -> dict[str, Any]:
    """Return `end`. `instance` is the run's URI, for the problem document; `debug` adds a tool's traceback."""
    document: dict[str, Any] = {"status": str(event.outcome)}
    if event.error is not None:
        problem = event.error.document(instance)
        if debug and isinstance(event.error, ToolFailed) and event.error.traceback:
            problem["traceback"] = event.error.traceback
        document["error"] = problem
    document["chunks"] = event.chunks
    if event.metadata:
        document["metadata"] = dict(event.metadata)
    if event.timing is not None:
        timing = event.timing
        document["timing"] = {"queue_ms": timing.queue_ms, "first_chunk_ms": timing.first_chunk_ms, "total_ms": timing.total_ms}
    return document


def dump(document: dict[str, Any]) -> bytes:
    """Return compact JSON that also survives clients which split lines at U+2028, U+2029 and U+0085."""
    return escape_separators(orjson.dumps(document))


def escape_separators(text: bytes) -> bytes:
    """Return JSON text with the Unicode line separators as escapes; in JSON they stand only inside strings.

    Browsers and servers agree on CR and LF alone, `str.splitlines()` clients don't (fastapi/fastapi#15515).
    """
    if text.isascii():
        # One pass at memory speed, and true of most batches.
        return text
    if b"\xe2\x80" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    if b"\xc2\x85" in text:
        text = text.replace(b"\xc2\x85", b"\\u0085")
    return text
