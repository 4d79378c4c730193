"""Runs as OpenTelemetry spans, one each. The only importer of the OpenTelemetry SDK, which is the extra `otel`.

Made by app.py where the settings ask for it; called by runs/ through the Trace protocol, never for each batch. A run's span begins when
it is accepted, under the caller's `traceparent` where that came, and its own context goes on to the worker in its place. Ended spans
wait in the SDK's queue, which is bounded and drops, for its thread that exports them; nothing here waits.
What a client does is no error: only what the gateway, a worker, a tool or a deadline did ends a span as one.
Standards: W3C Trace Context; OpenTelemetry's semantic conventions for the names that they have (`error.type`, `session.id`, `rpc.*`,
`user.id`), `gateway.*` for ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.call import ToolCall
from gateway.caller import ANONYMOUS
from gateway.correlation import Correlation
from gateway.errors import GatewayError, ToolFailed
from gateway.events import Ended, Outcome

# Of one run: beyond that, readers and gaps are only counted.
NEWS_LIMIT: Final = 32
SHUTDOWN_TIMEOUT_S: Final = 5.0

_FAULTS = frozenset({Outcome.ERROR, Outcome.DEADLINE})


class Tracing:
    """The tracer of one gateway's runs."""

    def __init__(self, exporter: SpanExporter, *, version: str, service_name: str | None = None, sample_ratio: float | None = None) -> None:
        """`service_name` and `sample_ratio` None: what OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER say, else the service's name, and all.

        A caller's own decision to sample, or not, goes before the ratio.
        """
        named = service_name or os.environ.get("OTEL_SERVICE_NAME") or "snakepit-gateway"
        resource = Resource.create({SERVICE_NAME: named, SERVICE_VERSION: version})
        sampler: Sampler | None = None if sample_ratio is None else ParentBased(TraceIdRatioBased(sample_ratio))
        # Its own provider, not the process's: any number of gateways can live in a process.
        self._provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gateway", version)

    def begin(self, call: ToolCall) -> ToolCall:
        """Begin the span of a call's run; see runs.hub.RunTracer."""
        span = self._tracer.start_span(f"run {call.tool}", context=_parent(call.correlation), kind=SpanKind.SERVER)
        context = span.get_span_context()
        state = context.trace_state.to_header() or None
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        correlation = Correlation(call.correlation.request_id, traceparent, state)
        return call.but(correlation=correlation, trace=RunSpan(span, call) if span.is_recording() else None)

    async def aclose(self) -> None:
        """Export what is left, for at most SHUTDOWN_TIMEOUT_S, and stop; what a collector has not taken by then is lost."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def stop() -> None:
            self._provider.shutdown()
            # The loop may be gone by then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(over.set)

        # Not one of the loop's threads: the process would wait for it.
        threading.Thread(target=stop, name="last spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                await over.wait()


class RunSpan:
    """One run as a span; a correlation.Trace."""

    __slots__ = ("_gaps", "_joined", "_news", "_span")

    def __init__(self, span: Span, call: ToolCall) -> None:
        self._span = span
        self._news = self._gaps = self._joined = 0
        attributes: dict[str, str | bool] = {
            "gateway.tool": call.tool,
            "gateway.streaming": call.streaming,
            "gateway.request_id": call.correlation.request_id,
            "rpc.system.name": "grpc",
        }
        if call.session_id is not None:
            attributes["session.id"] = call.session_id
        if call.caller != ANONYMOUS:
            attributes["user.id"] = call.caller.id
        span.set_attributes(attributes)

    def queued(self, position: int, depth: int) -> None:
        self._span.add_event("queued", {"gateway.queue.position": position, "gateway.queue.depth": depth})

    def leased(self, run: str, pool: str, worker: str) -> None:
        self._span.set_attributes({"gateway.run": run, "gateway.pool": pool, "gateway.worker": worker})
        self._span.add_event("leased")

    def first_chunk(self) -> None:
        self._span.add_event("first chunk")

    def gap(self, first: int, last: int, reason: str) -> None:
        self._gaps += 1
        self._tell("gap", {"gateway.gap.first": first, "gateway.gap.last": last, "gateway.gap.reason": reason})

    def reader(self, *, joined: bool, role: str) -> None:
        self._joined += joined
        self._tell("reader joined" if joined else "reader left", {"gateway.reader.role": role})

    def ended(self, end: Ended, *, cause: str | None, size_bytes: int) -> None:
        span = self._span
        span.set_attributes(
            {
                "gateway.outcome": end.outcome.value,
                "gateway.chunks": end.chunks,
                "gateway.bytes": size_bytes,
                "gateway.readers": self._joined,
                "gateway.gaps": self._gaps,
            }
        )
        if cause is not None:
            span.set_attribute("gateway.cancel_cause", cause)
        if end.error is not None and end.outcome in _FAULTS:
            self._fail(end.error)
        span.end()

    def refused(self, error: GatewayError) -> None:
        if not self._span.is_recording():
            # Whoever passes the error on may say so again.
            return
        self._span.set_attribute("gateway.outcome", "refused")
        if error.http_status >= 500:
            self._fail(error)
        self._span.end()

    def _fail(self, error: GatewayError) -> None:
        kind = error.error_type if isinstance(error, ToolFailed) else None
        self._span.set_attributes({"error.type": kind or error.problem, "rpc.response.status_code": error.code.name})
        self._span.set_status(Status(StatusCode.ERROR, error.detail[:500]))

    def _tell(self, event: str, attributes: Mapping[str, str | int]) -> None:
        self._news += 1
        if self._news <= NEWS_LIMIT:
            self._span.add_event(event, attributes)


def otlp(endpoint: str | None) -> SpanExporter:
    """Return an exporter over OTLP/HTTP. `endpoint` is a URL, whole; None: what OTEL_EXPORTER_OTLP_* say, else the local collector."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint)


def _parent(correlation: Correlation) -> Context:
    """Return the context that a run's span begins in: the caller's where there is one, whatever else this process traces."""
    if correlation.traceparent is None:
        return Context()
    _, trace_id, span_id, flags = correlation.traceparent.split("-")[:4]
    state = TraceState.from_header([correlation.tracestate]) if correlation.tracestate else None
    remote = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)), trace_state=state)
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())
