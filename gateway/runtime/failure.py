"""What a caller is told when a tool fails: a status code and Snakepit's JSON detail, bounded so that it arrives.

Raised by tools (ToolError, or any exception) and by the runtime itself (the subclasses of Refusal); turned into a
Failure by execution.py and servicer.py. The detail is ASCII JSON with type, message, stacktrace, traceback and
context as Snakepit's workers send it, and details and errors where there are any. It travels in the status
message, which gRPC percent-encodes into a header, so it must stay small (limits.DETAIL_LIMIT_BYTES).

    ToolError              a tool's own choice of code
    └── Refusal            the runtime's own: no traceback, the text says it all
        ├── ToolNotFound        NOT_FOUND
        ├── InvalidArguments    INVALID_ARGUMENT, one entry in `errors` for each wrong field
        ├── WrongCall           UNIMPLEMENTED: streaming tool called as unary, or the reverse
        ├── WrongTool           INTERNAL: what the function is contradicts its @tool
        ├── Unserialisable      INTERNAL: a value without a JSON form
        ├── TooLarge            RESOURCE_EXHAUSTED: a chunk over the message limit
        └── Draining            UNAVAILABLE
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from gateway.errors import Code, FieldError
from gateway.runtime.limits import DETAIL_LIMIT_BYTES

_HERE = str(Path(__file__).parent)
# Innermost frames looked at; how many of them fit is found by trying.
_FRAMES = 24


class ToolError(Exception):
    """Raised by a tool to choose its status: `raise ToolError("NOT_FOUND", "no such model", {"model": name})`.

    `code` is a gRPC code: a Code, its name or its number. `details` is any JSON value for the caller's program.

    Raises:
        ValueError: there is no such code, or it is OK.
    """

    def __init__(self, code: Code | str | int, message: str, details: Any = None) -> None:
        super().__init__(message)
        try:
            self.code = Code[code.upper()] if isinstance(code, str) else Code(code)
        except KeyError:
            raise ValueError(f"{code!r} is not a gRPC status code; one of {', '.join(Code.__members__)}") from None
        if self.code is Code.OK:
            raise ValueError("an error can't have the status OK")
        self.message = message
        self.details = details


class Refusal(ToolError):
    """An error of the runtime itself, whose place in the code says nothing to a caller."""

    status: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(self.status, message)
        self.errors = tuple(errors)


class ToolNotFound(Refusal):
    status = Code.NOT_FOUND


class InvalidArguments(Refusal):
    status = Code.INVALID_ARGUMENT


class WrongCall(Refusal):
    status = Code.UNIMPLEMENTED


class WrongTool(Refusal):
    status = Code.INTERNAL


class Unserialisable(Refusal):
    status = Code.INTERNAL


class TooLarge(Refusal):
    status = Code.RESOURCE_EXHAUSTED


class Draining(Refusal):
    status = Code.UNAVAILABLE


# The first class that fits counts; FileNotFoundError, PermissionError and TimeoutError are OSErrors, which map to nothing.
_CODES: tuple[tuple[type[BaseException], Code], ...] = (
    (FileNotFoundError, Code.NOT_FOUND),
    (PermissionError, Code.PERMISSION_DENIED),
    (NotImplementedError, Code.UNIMPLEMENTED),
    (TimeoutError, Code.DEADLINE_EXCEEDED),
    (MemoryError, Code.RESOURCE_EXHAUSTED),
    (ValueError, Code.INVALID_ARGUMENT),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an execution failed: the status code and the status message (the JSON detail)."""

    code: Code
    detail: str


def code_of(error: BaseException) -> Code:
    """Return the status code for an exception: its own for a ToolError, the table's, else INTERNAL."""
    if isinstance(error, ToolError):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.INTERNAL)


def describe(error: BaseException, *, tool: str, session_id: str) -> Failure:
    """Return the Failure for an exception that came out of a tool, or of the runtime on its behalf."""
    document: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _message(error),
        "stacktrace": _frames(error),
        "traceback": "",
        "context": {"tool_name": _clip(tool, 200), "session_id": _clip(session_id, 200)},
    }
    if isinstance(error, ToolError) and error.details is not None:
        document["details"] = _json_value(error.details)
    if isinstance(error, Refusal) and error.errors:
        document["errors"] = [entry._asdict() for entry in error.errors]
    return Failure(code_of(error), _bounded(document))


def _bounded(document: dict[str, Any]) -> str:
    """Return the document as ASCII JSON that fits: frames go first (outermost first), then details, then the message's end."""
    frames: list[str] = document["stacktrace"]
    for kept in range(len(frames), -1, -1):
        document["stacktrace"] = frames[len(frames) - kept :]
        document["traceback"] = "".join(document["stacktrace"])
        if (text := _fitting(document)) is not None:
            return text
    if document.pop("details", None) is not None and (text := _fitting(document)) is not None:
        return text
    while len(errors := document.get("errors", ())) > 8:
        document["errors"] = errors[: len(errors) // 2]
    for error in document.get("errors", ()):
        error.update(field=_clip(error["field"], 100), detail=_clip(error["detail"], 200))
    message: str = document["message"]
    while (text := _fitting(document)) is None:
        message = message[: len(message) // 2]
        document["message"] = f"{message}…"
    return text


def _fitting(document: Mapping[str, Any]) -> str | None:
    text = json.dumps(document)
    # gRPC percent-encodes all but printable ASCII, and `%` itself; json.dumps leaves only `%` to it.
    return text if len(text) + 2 * text.count("%") <= DETAIL_LIMIT_BYTES else None


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} whose text can't be read>"


def _frames(error: BaseException) -> list[str]:
    """Return the formatted traceback, a line or a frame an entry, innermost last; none for a Refusal."""
    if isinstance(error, Refusal):
        return []
    try:
        return traceback.format_exception(type(error), error, _users_part(error.__traceback__), limit=-_FRAMES)
    except Exception:
        return []


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without the runtime's own frames at its beginning."""
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return trace


def _json_value(details: Any) -> Any:
    """Return an author's details as a JSON value; what has no JSON form as its repr."""
    try:
        json.dumps(details, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return repr(details)
    return details


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
