"""Where an execution comes from: the run, the request and the trace that its caller names in the call's headers.

Read by servicer.py, once an execution. `enter` makes it known to all code of the execution, sync and async: to the worker's log, whose
lines then name the run, and to OpenTelemetry where that is installed, so that spans which a tool makes are the run's children.
Standards: W3C Trace Context; the run's header is the gateway's, the request's Snakepit's.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

RUN_ID_KEY = "x-gateway-run-id"
REQUEST_ID_KEY = "x-snakepit-correlation-id"
TRACE_KEYS = ("traceparent", "tracestate")

_run_id: contextvars.ContextVar[str] = contextvars.ContextVar("run_id", default="")


class Origin(NamedTuple):
    """Empty where the caller names none. `trace` is what a call that the tool makes passes on: `traceparent`, perhaps `tracestate`."""

    run_id: str = ""
    request_id: str = ""
    trace: Mapping[str, str] = {}

    def enter(self) -> None:
        """Have the current context, and the threads that are handed a copy of it, be this execution's."""
        _run_id.set(self.run_id)
        if self.trace and (opentelemetry := _opentelemetry()) is not None:
            extract, attach = opentelemetry
            attach(extract(self.trace))


def read_origin(metadata: Iterable[tuple[str, Any]]) -> Origin:
    """Return what a call's headers say."""
    found = {key: str(value) for key, value in metadata}
    trace = {key: found[key] for key in TRACE_KEYS if key in found}
    return Origin(found.get(RUN_ID_KEY, ""), found.get(REQUEST_ID_KEY, ""), trace)


class RunNamed(logging.Filter):
    """Gives each record `run`: what a log line says of the run that it belongs to, ` [r_…]`, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        run_id = _run_id.get()
        record.run = f" [{run_id}]" if run_id else ""
        return True


@cache
def _opentelemetry() -> tuple[Any, Any] | None:
    """Return OpenTelemetry's `extract` and `attach`; None where it isn't installed. Imported with the first call that is traced."""
    try:
        from opentelemetry.context import attach
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return None
    return TraceContextTextMapPropagator().extract, attach
