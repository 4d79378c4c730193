"""The JSON documents of the API as models, for the OpenAPI document: events, problems, tools, runs, sessions, pools.

Only description: nothing here runs in a request, but the check of a new session's body.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.sessions import ID_RULE

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
    deadline: Annotated[str | None, Field(description="Which deadline has passed: total, queue, first_chunk or idle.")] = None
    request_id: Annotated[str | None, Field(description="The request that got this answer: its X-Request-Id.")] = None
    trace_id: Annotated[str | None, Field(description="The trace that the run, or the request, is part of.")] = None


class Links(BaseModel):
    """Where the run can be read again and stopped."""

    events: str
    cancel: str


class StartEvent(BaseModel):
    """`start`: the first event of every connection."""

    run: RunId
    tool: str
    on_disconnect: Annotated[str, Field(examples=["cancel", "grace:30s", "continue"])]
    timeout_ms: int
    queue_timeout_ms: int | None = None
    first_chunk_timeout_ms: int | None = None
    idle_timeout_ms: int | None = None
    heartbeat_ms: int
    links: Links
    trace_id: Annotated[str | None, Field(description="The W3C trace that the run is part of.")] = None
    resumed: bool | None = None
    from_: Annotated[int | None, Field(alias="from", description="On a re-attach: the number of the next chunk.")] = None


class StatusEvent(BaseModel):
    """`status`: what the run is doing while it has nothing else to say."""

    state: Annotated[str, Field(examples=["queued", "running"])]
    position: int | None = None
    depth: int | None = None
    pool: str | None = None
    worker: str | None = None
    attempt: int | None = None


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

    status: Annotated[str, Field(examples=["ok", "error", "cancelled", "deadline", "expired", "shutdown", "auth_expired"])]
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


class RpcRule(BaseModel):
    """A path that a method has by google.api.http."""

    method: Annotated[str, Field(description="The HTTP method; `*`: any.", examples=["GET"])]
    path: Annotated[str, Field(examples=["/v1/{name=shelves/*/books/*}"])]


class RpcLinks(BaseModel):
    """Where a method is called: by HTTP, with JSON lines where it takes a stream of messages, and by a WebSocket."""

    call: str
    socket: str


class RpcMethod(BaseModel):
    """A method of a gRPC service."""

    name: str
    kind: Literal["unary", "server_streaming", "client_streaming", "bidi"]
    description: str
    deprecated: bool
    get: Annotated[bool, Field(description="Whether it may be called with GET.")]
    request: Annotated[str, Field(description="The message that it takes, by its full name.")]
    response: str
    http: list[RpcRule]
    links: RpcLinks
    request_schema: Annotated[Any, Field(description="JSON Schema of what it takes; only where one service is described.")] = None
    response_schema: Any = None


class RpcServiceLinks(BaseModel):
    """Where the service is described."""

    self: str


class RpcServiceDescription(BaseModel):
    """A gRPC service."""

    name: Annotated[str, Field(examples=["grpc.health.v1.Health"])]
    pool: Annotated[str, Field(description="The server that has it, among the pools.")]
    description: str
    deprecated: bool
    links: RpcServiceLinks
    methods: list[RpcMethod]


class RpcServiceList(BaseModel):
    """All services that the caller may use."""

    services: list[RpcServiceDescription]


class QueuePlace(BaseModel):
    """Where a run waits for a worker: its place, from 1, and how many wait."""

    position: int
    depth: int


class RunDescription(BaseModel):
    """A run's state."""

    run: RunId
    tool: str
    state: Annotated[str, Field(examples=["queued", "running", "ok", "error", "cancelled", "deadline", "shutdown"])]
    created_at: Annotated[str, Field(description="RFC 3339, UTC.")]
    session: str | None
    pool: str | None
    worker: str | None
    chunks: int
    on_disconnect: str
    links: dict[str, str]
    queue: QueuePlace | None = None
    end: EndEvent | None = None


class RunList(BaseModel):
    """A page of runs, newest first."""

    runs: list[RunDescription]
    cursor: Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one.")]
    next: Annotated[str | None, Field(description="The next page's URI; null on the last one.")]


class LiveReader(BaseModel):
    """One who reads a run now."""

    format: Annotated[str, Field(examples=["sse", "ndjson", "json", "websocket", "grpc"])]
    role: str
    overflow: str
    lag_chunks: int
    lag_bytes: int


class LiveRun(RunDescription):
    """An open run, as an operator sees it."""

    caller: str
    request_id: str | None
    trace_id: str | None
    age_ms: int
    queue_ms: int | None
    first_chunk_ms: int | None
    silent_ms: Annotated[int | None, Field(description="Since the last chunk.")]
    bytes: Annotated[int, Field(description="Of its chunks, as JSON.")]
    paused: Annotated[bool, Field(description="Its worker waits for a slow reader.")]
    reader_count: int
    readers: Annotated[list[LiveReader], Field(description="The first twenty.")]


class LiveRunList(BaseModel):
    """A page of open runs, newest first."""

    runs: list[LiveRun]
    total: Annotated[int, Field(description="How many fit the filters, on all pages.")]
    cursor: str | None
    next: str | None


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


class ProbeState(BaseModel):
    """What became of a probe, and after how long."""

    probe: str
    state: Annotated[str, Field(examples=["open", "done", "left"])]
    after_ms: int | None


class ProbeBody(BaseModel):
    """How many bytes arrived."""

    bytes: int


class NewSignIn(BaseModel):
    """Who signs in; not needed with an Authorization header."""

    token: Annotated[str, Field(description="An API key or a JWT.")]


class SignedIn(BaseModel):
    """Who is signed in, what it may do, and until when."""

    caller: str
    scopes: list[str]
    expires_at: str


class NewTicket(BaseModel):
    """What a ticket is wanted for."""

    path: Annotated[str, Field(examples=["/v1/tools/train/stream?epochs=5"])]


class Ticket(BaseModel):
    """A one-time ticket, and the URL with it."""

    ticket: str
    expires_in_s: int
    url: str


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
    RpcServiceDescription,
    RpcServiceList,
    RunDescription,
    RunList,
    LiveRunList,
    NewSession,
    SessionDescription,
    PoolList,
    NewSignIn,
    SignedIn,
    NewTicket,
    Ticket,
    Status,
    ProbeState,
    ProbeBody,
    ProblemType,
)
