"""What the OpenAPI document says of each route: summaries, answers, and the schemas of events and problems.

Only description: nothing here runs in a request, but the check of a new session's body. openapi.py puts it
together and adds a path for each tool.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.endpoints.options import OPTIONS
from gateway.sessions import ID_RULE

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"

RunId = Annotated[str, Field(pattern="^r_[0-9A-HJKMNP-TV-Z]{26}$", examples=["r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"])]


class FieldProblem(BaseModel):
    """One wrong field."""

    field: Annotated[str, Field(description="A JSON pointer into the arguments, or an option's name.")]
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: Annotated[str, Field(description="A stable path under /problems/.", examples=["/problems/pool-saturated"])]
    title: str
    status: int
    detail: Annotated[str, Field(description="What was wrong, and what is allowed.")]
    instance: str | None = None
    code: Annotated[str, Field(description="The gRPC code's name.", examples=["UNAVAILABLE"])]
    retryable: bool
    errors: list[FieldProblem] | None = None
    error_type: Annotated[str | None, Field(description="The Python exception's class, when a tool raised one.")] = None


class Links(BaseModel):
    """Where the run can be read again and stopped."""

    events: str
    cancel: str


class StartEvent(BaseModel):
    """`start`: the first event of every connection."""

    run: RunId
    tool: str
    on_disconnect: str
    timeout_ms: int
    heartbeat_ms: int
    links: Links
    resumed: bool | None = None
    from_: Annotated[int | None, Field(alias="from", description="On a re-attach: the number of the next chunk.")] = None


class StatusEvent(BaseModel):
    """`status`: what the run is doing while it has nothing else to say."""

    state: Annotated[str, Field(examples=["queued", "running"])]
    position: int | None = None
    depth: int | None = None
    worker: str | None = None


class GapEvent(BaseModel):
    """`gap`: chunks that can't be delivered."""

    from_: Annotated[int, Field(alias="from")]
    to: int
    reason: Annotated[str, Field(examples=["evicted", "slow_consumer"])]


class Timing(BaseModel):
    """Milliseconds since the run was accepted."""

    queue_ms: int | None
    first_chunk_ms: int | None
    total_ms: int


class EndEvent(BaseModel):
    """`end`: the last event, exactly once. A stream without it was cut."""

    status: Annotated[str, Field(examples=["ok", "error", "cancelled", "deadline", "expired", "shutdown"])]
    error: Problem | None = None
    chunks: int
    metadata: Annotated[dict[str, str] | None, Field(description="The final chunk's metadata, with execution_time_ms and others.")] = None
    timing: Timing | None = None


class CollectedStream(BaseModel):
    """A whole stream as one answer."""

    chunks: list[Any]
    gaps: Annotated[list[GapEvent] | None, Field(description="Chunks that were gone before this reader came.")] = None
    end: EndEvent


class CallResult(BaseModel):
    """A unary tool's answer."""

    result: Any
    metadata: dict[str, str]


class ToolLinks(BaseModel):
    """Where the tool is executed."""

    self: str
    stream: str | None = None
    call: str | None = None


class ToolDescription(BaseModel):
    """A tool of the catalogue."""

    name: str
    description: str
    supports_streaming: Annotated[bool | None, Field(description="null: its worker can't say.")]
    parameters: Annotated[dict[str, Any] | None, Field(description="A JSON Schema of the arguments; null: its worker can't say.")]
    pool: str
    links: ToolLinks


class ToolList(BaseModel):
    """The catalogue."""

    tools: list[ToolDescription]


class RunDescription(BaseModel):
    """A run's state."""

    run: RunId
    tool: str
    state: str
    session: str | None
    worker: str | None
    chunks: int
    links: dict[str, str]
    end: EndEvent | None = None


class NewSession(BaseModel):
    """The body of `POST /v1/sessions`; both members are optional."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str | None, Field(description=f"The id; made up here when missing. {ID_RULE}.")] = None
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=4096)]],
        Field(max_length=32, description="Kept with the session."),
    ] = {}


class SessionDescription(BaseModel):
    """A session; times are RFC 3339 in UTC."""

    id: str
    created_at: str
    last_used_at: str
    metadata: dict[str, str]


class WorkerState(BaseModel):
    """A worker of a pool."""

    id: str
    state: Annotated[str, Field(examples=["starting", "ready", "draining", "stopping", "down"])]
    in_flight: int
    concurrency: int
    restarts: int
    address: str | None


class PoolState(BaseModel):
    """A pool: what it does now."""

    name: str
    kind: str
    queued: int
    in_flight: int
    workers: list[WorkerState]


class PoolList(BaseModel):
    """All pools."""

    pools: list[PoolState]


class Status(BaseModel):
    """`status`, and why."""

    status: str
    pools: dict[str, list[str]] | None = None
    open_runs: int | None = None


class ProblemType(BaseModel):
    """What a problem type means."""

    type: str
    title: str
    status: int
    code: str
    retryable: bool


MODELS: tuple[type[BaseModel], ...] = (
    Problem,
    StartEvent,
    StatusEvent,
    GapEvent,
    EndEvent,
    CollectedStream,
    CallResult,
    ToolDescription,
    ToolList,
    RunDescription,
    NewSession,
    SessionDescription,
    PoolList,
    Status,
    ProblemType,
)

_OPTION_TEXTS = {
    "_session": "Pins the call to the session's worker.",
    "_pool": "The pool to use.",
    "_timeout_ms": "The longest time for the whole run, queue included; 300000 by default.",
    "_idle_timeout_ms": "The longest silence between chunks.",
    "_affinity": "`hint`, `strict_queue` or `strict_fail_fast`: what to do when the session's worker is busy.",
    "_on_disconnect": "`cancel`: the tool is cancelled when its last reader leaves.",
    "_overflow": "`block`: the tool waits for a slow reader.",
}
OPTION_PARAMETERS = [
    {"name": name, "in": "query", "required": False, "description": _OPTION_TEXTS[name], "schema": {"type": "string"}} for name in OPTIONS
]
RESUME_PARAMETER = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The last event that was received: the answer continues after it, and the tool is not started again.",
    "schema": {"type": "string"},
}

STREAM_TEXT = (
    "Events: `start` (StartEvent) first, then unnamed events, one for each chunk, whose data is one JSON value, `status` (StatusEvent), "
    "`gap` (GapEvent), and `end` (EndEvent) last. A line `: hb` is a heartbeat."
)


def reference(model: str) -> dict[str, str]:
    """Return a reference to one of MODELS."""
    return {"$ref": f"#/components/schemas/{model}"}


def answer(description: str, model: str) -> dict[str, Any]:
    """Return a JSON answer."""
    return {"description": description, "content": {JSON_TYPE: {"schema": reference(model)}}}


def problems(*statuses: int) -> dict[str, Any]:
    """Return the problem answers for these HTTP statuses, and one for all others."""
    problem = {"content": {PROBLEM_TYPE: {"schema": reference("Problem")}}}
    texts = {
        400: "A wrong option or body",
        404: "Not found",
        406: "No acceptable media type",
        410: "Over and forgotten",
        413: "Too large",
        415: "Not JSON",
        422: "The arguments do not fit the tool's schema",
        429: "Too many open streams",
        501: "The tool is not of this kind",
        503: "No worker in time",
        504: "A deadline has passed",
    }
    named = {str(status): {"description": texts[status], **problem} for status in statuses}
    return named | {"default": {"description": "Any other problem", **problem}}


def stream_answers(chunk: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what a stream answers. `chunk` is the schema of one chunk where it is known."""
    line = {"type": "string", "description": f'{STREAM_TEXT} As lines: `{{"seq":n,"data":…}}`, then `{{"end":…}}`.'}
    return {
        "200": {
            "description": "The stream",
            "content": {
                "text/event-stream": {"schema": {"type": "string", "description": STREAM_TEXT}},
                "application/x-ndjson": {"schema": line},
                "application/jsonl": {"schema": line},
                JSON_TYPE: {"schema": reference("CollectedStream")},
            },
        },
        "204": {"description": "A reconnect after the end: there is nothing left"},
        **problems(400, 404, 406, 413, 415, 422, 429, 501, 503, 504),
    }


def arguments_body(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the request body: a JSON object of arguments."""
    return {"required": False, "content": {JSON_TYPE: {"schema": schema or {"type": "object", "additionalProperties": True}}}}


def _route(summary: str, responses: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """Return the keyword arguments for add_api_route: our own answers, in place of FastAPI's guesses."""
    return {"summary": summary, "response_model": None, "openapi_extra": {"responses": responses, **extra}}


TOOLS = _route("List the tools", {"200": answer("The catalogue", "ToolList"), **problems()})
TOOL = _route("Describe a tool", {"200": answer("The tool", "ToolDescription"), **problems(404)})
CALL = _route(
    "Execute a tool and wait for its result",
    {"200": answer("The result", "CallResult"), **problems(400, 404, 406, 413, 415, 422, 429, 501, 503, 504)},
    requestBody=arguments_body(),
    parameters=OPTION_PARAMETERS,
)
STREAM_POST = _route(
    "Execute a tool and stream its chunks",
    stream_answers(),
    requestBody=arguments_body(),
    parameters=[*OPTION_PARAMETERS, RESUME_PARAMETER],
)
STREAM_GET = _route(
    "Execute a tool and stream its chunks (EventSource); arguments are query parameters",
    stream_answers(),
    parameters=[*OPTION_PARAMETERS, RESUME_PARAMETER],
)
RUN = _route("Look at a run", {"200": answer("The run", "RunDescription"), **problems(404)})
RUN_EVENTS = _route("Subscribe to a run", {**stream_answers(), **problems(404, 406)}, parameters=[RESUME_PARAMETER])
CANCEL_DELETE = _route("Cancel a run", {"200": answer("The run", "RunDescription"), **problems(404)})
CANCEL_POST = _route("Cancel a run (for navigator.sendBeacon)", {"200": answer("The run", "RunDescription"), **problems(404)})
SESSION_CREATE = _route(
    "Create a session",
    {
        "200": answer("It was there already", "SessionDescription"),
        "201": answer("Created", "SessionDescription"),
        **problems(400, 413, 415),
    },
    requestBody={"required": False, "content": {JSON_TYPE: {"schema": reference("NewSession")}}},
)
SESSION = _route("Look at a session", {"200": answer("The session", "SessionDescription"), **problems(404)})
SESSION_END = _route("End a session", {"204": {"description": "Ended"}, **problems(404)})
POOLS = _route("Look at the pools", {"200": answer("The pools", "PoolList"), **problems()})
LIVEZ = _route("Is the process alive?", {"200": answer("Yes", "Status"), **problems()})
READYZ = _route("Can it serve?", {"200": answer("Yes", "Status"), "503": answer("No, and why", "Status"), **problems()})
PROBLEM = _route("What a problem type means", {"200": answer("The type", "ProblemType"), **problems(404)})
