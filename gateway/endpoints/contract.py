"""What the OpenAPI document says of each route: summaries and answers, in the words of schemas.py and parameters.py.

Only description: nothing here runs in a request. openapi.py puts it together and adds a path for each tool.
"""

from __future__ import annotations

from typing import Any

from gateway.endpoints.options import READER_OPTIONS, RUN_OPTIONS
from gateway.endpoints.parameters import (
    IDEMPOTENCY_PARAMETER,
    OPTION_PARAMETERS,
    PREFER_ASYNC_PARAMETER,
    PREFER_PARAMETER,
    RESUME_PARAMETER,
    STARTING_PARAMETERS,
    option_parameters,
)
from gateway.endpoints.runstate import STATES

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"

STREAM_TEXT = (
    "Events: `start` (StartEvent) first, then unnamed events, one for each chunk, whose data is one JSON value, `status` (StatusEvent), "
    "`gap` (GapEvent), and `end` (EndEvent) last. A line `: hb` is a heartbeat."
)


def reference(model: str) -> dict[str, str]:
    """Return a reference to one of schemas.MODELS."""
    return {"$ref": f"#/components/schemas/{model}"}


def answer(description: str, model: str) -> dict[str, Any]:
    """Return a JSON answer."""
    return {"description": description, "content": {JSON_TYPE: {"schema": reference(model)}}}


def problems(*statuses: int) -> dict[str, Any]:
    """Return the problem answers for these HTTP statuses, and one for all others."""
    problem = {"content": {PROBLEM_TYPE: {"schema": reference("Problem")}}}
    texts = {
        400: "A wrong option or body",
        401: "No credential, or none that is good",
        403: "The credential does not reach so far",
        404: "Not found",
        405: "The method has side effects: POST",
        406: "No acceptable media type",
        410: "Over and forgotten",
        413: "Too large",
        415: "Not JSON",
        422: "The arguments do not fit the tool's schema, or the idempotency key belongs to another request",
        429: "Too many open streams, or a limit of the caller is reached",
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
        "202": answer("With `Prefer: respond-async`: started in the background", "RunDescription"),
        "204": {"description": "A reconnect after the end: there is nothing left"},
        **problems(400, 404, 406, 413, 415, 422, 429, 501, 503, 504),
    }


def arguments_body(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the request body: a JSON object of arguments."""
    return {"required": False, "content": {JSON_TYPE: {"schema": schema or {"type": "object", "additionalProperties": True}}}}


def route(summary: str, responses: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """Return the keyword arguments for add_api_route: our own answers, in place of FastAPI's guesses."""
    return {"summary": summary, "response_model": None, "openapi_extra": {"responses": responses, **extra}}


TOOLS = route("List the tools", {"200": answer("The catalogue", "ToolList"), **problems()})
TOOL = route("Describe a tool", {"200": answer("The tool", "ToolDescription"), **problems(404)})
CALL = route(
    "Execute a tool and wait for its result",
    {"200": answer("The result", "CallResult"), **problems(400, 404, 406, 413, 415, 422, 429, 501, 503, 504)},
    requestBody=arguments_body(),
    parameters=[*STARTING_PARAMETERS, IDEMPOTENCY_PARAMETER],
)
STREAM_POST = route(
    "Execute a tool and stream its chunks",
    stream_answers(),
    requestBody=arguments_body(),
    parameters=[*OPTION_PARAMETERS, RESUME_PARAMETER, IDEMPOTENCY_PARAMETER, PREFER_ASYNC_PARAMETER],
)
STREAM_GET = route(
    "Execute a tool and stream its chunks (EventSource); arguments are query parameters",
    stream_answers(),
    parameters=[*OPTION_PARAMETERS, RESUME_PARAMETER, PREFER_ASYNC_PARAMETER],
)
_RESULTS = [reference("CollectedStream"), reference("CallResult")]
_RESULT = {"description": "The run has ended: what it came to", "content": {JSON_TYPE: {"schema": {"anyOf": _RESULTS}}}}
RUN_START = route(
    "Execute a tool in the background",
    {
        "200": {**_RESULT, "description": "It ended while it was waited for (`Prefer: wait`): what it came to"},
        "202": answer("It has begun; Location says where it is", "RunDescription"),
        **problems(400, 404, 406, 413, 415, 422, 429, 503),
    },
    requestBody=arguments_body(),
    parameters=[*option_parameters(RUN_OPTIONS), IDEMPOTENCY_PARAMETER, PREFER_PARAMETER],
)
RUNS = route(
    "List the runs, newest first",
    {"200": answer("A page of them", "RunList"), **problems(400)},
    parameters=[
        {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
        {"name": "cursor", "in": "query", "required": False, "description": "From the page before.", "schema": {"type": "string"}},
        {"name": "state", "in": "query", "required": False, "description": "Only runs in this state.", "schema": {"enum": [*STATES]}},
        {"name": "tool", "in": "query", "required": False, "description": "Only runs of this tool.", "schema": {"type": "string"}},
    ],
)
ADMIN_RUNS = route(
    "List everybody's open runs on this gateway, newest first",
    {"200": answer("A page of them", "LiveRunList"), **problems(400)},
    parameters=[
        {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}},
        {"name": "cursor", "in": "query", "required": False, "description": "From the page before.", "schema": {"type": "string"}},
        {"name": "state", "in": "query", "required": False, "schema": {"enum": ["queued", "running"]}},
        *(
            {"name": name, "in": "query", "required": False, "description": f"Only runs of this {name}.", "schema": {"type": "string"}}
            for name in ("tool", "pool", "caller")
        ),
    ],
)
RUN = route("Look at a run", {"200": answer("The run", "RunDescription"), **problems(404, 410)})
RUN_RESULT = route(
    "Get a run's result",
    {"200": _RESULT, "202": answer("There is none yet", "RunDescription"), **problems(404, 406, 410, 413)},
    parameters=[PREFER_PARAMETER],
)
RUN_EVENTS = route(
    "Subscribe to a run",
    {name: text for name, text in {**stream_answers(), **problems(400, 404, 406, 410)}.items() if name != "202"},
    parameters=[*option_parameters(READER_OPTIONS), RESUME_PARAMETER],
)
CANCEL_DELETE = route("Cancel a run", {"200": answer("The run", "RunDescription"), **problems(404, 410)})
CANCEL_POST = route("Cancel a run (for navigator.sendBeacon)", {"200": answer("The run", "RunDescription"), **problems(404, 410)})
SESSION_CREATE = route(
    "Create a session",
    {
        "200": answer("It was there already", "SessionDescription"),
        "201": answer("Created", "SessionDescription"),
        **problems(400, 413, 415),
    },
    requestBody={"required": False, "content": {JSON_TYPE: {"schema": reference("NewSession")}}},
)
SESSION = route("Look at a session", {"200": answer("The session", "SessionDescription"), **problems(404)})
SESSION_END = route("End a session", {"204": {"description": "Ended"}, **problems(404)})
SIGN_IN = route(
    "Trade a key or a token for a session cookie",
    {"200": answer("Signed in; Set-Cookie has the session", "SignedIn"), **problems(400, 401, 403, 413, 415)},
    requestBody={"required": False, "content": {JSON_TYPE: {"schema": reference("NewSignIn")}}},
)
SIGN_OUT = route("Give the session cookie back", {"204": {"description": "Signed out"}, **problems(403)})
TICKETS = route(
    "Get a one-time ticket for the URL of an EventSource or a WebSocket",
    {"201": answer("The ticket", "Ticket"), **problems(400, 401, 413, 415)},
    requestBody={"required": True, "content": {JSON_TYPE: {"schema": reference("NewTicket")}}},
)
POOLS = route("Look at the pools", {"200": answer("The pools", "PoolList"), **problems()})
LIVEZ = route("Is the process alive?", {"200": answer("Yes", "Status"), **problems()})
READYZ = route("Can it serve?", {"200": answer("Yes", "Status"), "503": answer("No, and why", "Status"), **problems()})
_TEXT = {"schema": {"type": "string"}}
PROBE_STREAM = route(
    "Measure the path to here (gateway doctor)",
    {"200": {"description": "Events that say when they were sent", "content": {"text/event-stream": _TEXT}}} | problems(400, 429),
    parameters=[
        {"name": name, "in": "query", "required": False, "schema": {"type": "integer", "minimum": least}}
        for name, least in (("chunks", 0), ("interval_ms", 1), ("bytes", 0), ("silent_ms", 0), ("heartbeat_ms", 0))
    ],
)
PROBE_STATE = route("What became of a probe", {"200": answer("open, done or left", "ProbeState"), **problems(404)})
PROBE_BODY = route(
    "Count the bytes of a body (gateway doctor)",
    {"200": answer("How many came", "ProbeBody"), **problems(413)},
    requestBody={"required": False, "content": {"application/octet-stream": {}}},
)
METRICS = route(
    "The metrics, for Prometheus",
    {"200": {"description": "docs/metrics.md says what they are", "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}}}
    | problems(),
)
PROBLEM = route("What a problem type means", {"200": answer("The type", "ProblemType"), **problems(404)})
