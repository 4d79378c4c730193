"""What the OpenAPI document says of the options and headers of requests: their meaning, and what is allowed in them.

Only description, as contract.py, which uses it: options.py is what reads them. A client that is made from the document, or a fuzzer,
knows by it what a request may say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.call import Affinity
from gateway.endpoints.options import OPTIONS, STARTING_OPTIONS
from gateway.runs.policy import Overflow, Role

_OPTION_TEXTS = {
    "_session": "Pins the call to the session's worker.",
    "_pool": "The pool to use.",
    "_timeout_ms": "The longest time for the whole run, queue included; 300000 by default.",
    "_queue_timeout_ms": "The longest wait for a worker.",
    "_first_chunk_timeout_ms": "The longest time from the worker to the first chunk.",
    "_idle_timeout_ms": "The longest silence between chunks; before the first one, too, where that has no limit of its own.",
    "_affinity": "`hint`, `strict_queue` or `strict_fail_fast`: what to do when the session's worker is busy.",
    "_on_disconnect": "What it means when the last subscriber leaves. `cancel`: the tool is cancelled at once; `grace:30s`, `grace:500ms`: "
    "when nobody came back in that time; `continue`: never. Runs in the background: `continue` by default, all others: `cancel`.",
    "_overflow": "What happens to a reader that is too slow. `block`: the tool waits for it; `latest`: it is moved to the newest chunk "
    "and told of the gap; `disconnect`: its connection is closed without an `end`.",
    "_role": "`subscriber`, or `observer`, which neither slows the tool nor keeps it alive.",
    "_from": "Where to begin: `start`, `live`, after the chunk of this number, or after an event id.",
}

_RUN_ID = "r_[0-9A-HJKMNP-TV-Z]{26}"
_MILLISECONDS = {"type": "integer", "minimum": 1}
# What is allowed; the settings may allow less.
_OPTION_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "_session": {"type": "string", "pattern": "^[A-Za-z0-9._:~@-]{1,128}$"},
    "_pool": {"type": "string"},
    "_timeout_ms": _MILLISECONDS,
    "_queue_timeout_ms": _MILLISECONDS,
    "_first_chunk_timeout_ms": _MILLISECONDS,
    "_idle_timeout_ms": _MILLISECONDS,
    "_affinity": {"enum": [*Affinity]},
    "_on_disconnect": {"type": "string", "pattern": "^(cancel|continue|grace:0*[1-9][0-9]{0,5}m?s)$"},
    "_overflow": {"enum": [*Overflow]},
    "_role": {"enum": [*Role]},
    "_from": {"type": "string", "pattern": f"^(start|live|[0-9]{{1,15}}|{_RUN_ID}\\.(end|[0-9]{{1,15}}))$"},
}


def option_parameters(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the parameters for these options."""
    return [
        {"name": name, "in": "query", "required": False, "description": _OPTION_TEXTS[name], "schema": _OPTION_SCHEMAS[name]}
        for name in names
    ]


OPTION_PARAMETERS = option_parameters(OPTIONS)
STARTING_PARAMETERS = option_parameters(STARTING_OPTIONS)
RESUME_PARAMETER = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The last event that was received: the answer continues after it, and the tool is not started again.",
    "schema": {"type": "string"},
}

IDEMPOTENCY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1 to 255 printable ASCII characters. The same key with the same request joins the run that the first one started.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
PREFER_PARAMETER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "RFC 7240. `wait=<seconds>`: wait so long for the end of the run.",
    "schema": {"type": "string"},
}
PREFER_ASYNC_PARAMETER = PREFER_PARAMETER | {
    "description": "RFC 7240. `respond-async`: start the run in the background, as `POST /v1/tools/{tool}/runs` does."
}
