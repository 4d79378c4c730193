"""Runs as spans: what is a child of what, what is an error, and what is bounded."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.call import ToolCall
from gateway.caller import Caller
from gateway.correlation import Correlation, is_traceparent
from gateway.errors import GatewayError
from gateway.events import Gap
from gateway.runs.hub import Hub, HubLimits
from gateway.runs.policy import Cause, RunLimits, RunPolicy
from gateway.runs.run import Run
from gateway.telemetry import tracing as tracing_module
from gateway.telemetry.tracing import NEWS_LIMIT, Tracing, otlp
from gateway.workers.catalog import Catalog
from tests.conftest import FakePool, until, within
from tests.runs.conftest import RUN_ID, Clock, Owner, Reader, clock, owner, pool

__all__ = ["clock", "owner", "pool"]

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
CALL = ToolCall("count", {"count": 3}, 60.0, correlation=Correlation("req-1", PARENT, "a=b"))


class Traced:
    """A tracer whose spans are seen when it is closed."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(self._exporter, version="1", **options)

    async def spans(self) -> list[ReadableSpan]:
        await self.tracing.aclose()
        return list(self._exporter.get_finished_spans())

    async def span(self) -> ReadableSpan:
        (span,) = await self.spans()
        return span


@pytest.fixture
async def traced() -> AsyncIterator[Traced]:
    traced = Traced()
    yield traced
    await traced.tracing.aclose()


def started(call: ToolCall, pool: FakePool) -> Run:
    run = Run(RUN_ID, call, RunPolicy(), RunLimits(), Owner())
    run.start(pool)  # type: ignore[arg-type]
    return run


def names(span: ReadableSpan) -> list[str]:
    return [event.name for event in span.events]


async def test_a_run_is_one_span_under_its_callers_and_the_worker_is_told_of_it(clock: Clock, pool: FakePool, traced: Traced) -> None:
    call = traced.tracing.begin(CALL.but(session_id="s", caller=Caller("alice")))
    pool.busy = True
    run = started(call, pool)
    reader = Reader(run)
    (await pool.next_ticket()).grant()
    worker = await pool.next_call()
    worker.send(1, 22)
    worker.send(3)
    worker.end()
    reader.close()

    span = await traced.span()
    assert span.context is not None and span.parent is not None  # noqa: PT018
    assert (span.name, span.kind, span.status.status_code) == ("run count", SpanKind.SERVER, StatusCode.UNSET)
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}", span.parent.is_remote) == (TRACE_ID, "00f067aa0ba902b7", True)
    # Who reads beyond the end is not waited for.
    assert names(span) == ["queued", "reader joined", "leased", "first chunk"]
    assert dict(span.attributes or {}) == {
        "gateway.tool": "count",
        "gateway.streaming": True,
        "gateway.request_id": "req-1",
        "rpc.system.name": "grpc",
        "session.id": "s",
        "user.id": "alice",
        "gateway.run": RUN_ID,
        "gateway.pool": "default",
        "gateway.worker": "w-1",
        "gateway.outcome": "ok",
        "gateway.chunks": 3,
        "gateway.bytes": 4,
        "gateway.readers": 1,
        "gateway.gaps": 0,
    }
    assert dict(span.resource.attributes)["service.name"] == "snakepit-gateway"
    # The worker's parent is the run, not the run's own parent.
    told = worker.metadata
    assert told["traceparent"] == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"
    assert told["tracestate"] == "a=b"
    assert told["x-snakepit-correlation-id"] == "req-1"
    assert run.trace_id == TRACE_ID


async def test_without_a_caller_a_trace_begins_here(clock: Clock, pool: FakePool, traced: Traced) -> None:
    run = started(traced.tracing.begin(CALL.but(correlation=Correlation("req-1"))), pool)
    worker = await pool.next_call()
    worker.end()
    span = await traced.span()
    assert span.context is not None
    assert span.parent is None
    assert run.trace_id == f"{span.context.trace_id:032x}"
    assert is_traceparent(worker.metadata["traceparent"])


def by_client(run: Run) -> None:
    run.cancel(Cause.CLIENT)


def by_leaving(run: Run) -> None:
    Reader(run).close()


def by_shutdown(run: Run) -> None:
    run.cancel(Cause.SHUTDOWN)


@pytest.mark.parametrize(
    ("end", "outcome", "cause"),
    [(by_client, "cancelled", "client"), (by_leaving, "cancelled", "disconnect"), (by_shutdown, "shutdown", "shutdown")],
)
async def test_a_clients_leaving_is_no_error(
    clock: Clock, pool: FakePool, traced: Traced, end: Callable[[Run], None], outcome: str, cause: str
) -> None:
    end(started(traced.tracing.begin(CALL), pool))
    span = await traced.span()
    attributes = dict(span.attributes or {})
    assert (attributes["gateway.outcome"], attributes["gateway.cancel_cause"]) == (outcome, cause)
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes


async def test_a_tools_failure_is_an_error(clock: Clock, pool: FakePool, traced: Traced) -> None:
    started(traced.tracing.begin(CALL), pool)
    (await pool.next_call()).fail()
    span = await traced.span()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "boom")
    attributes = dict(span.attributes or {})
    assert (attributes["error.type"], attributes["rpc.response.status_code"]) == ("ValueError", "INVALID_ARGUMENT")


async def test_a_deadline_is_an_error(clock: Clock, pool: FakePool, traced: Traced) -> None:
    started(traced.tracing.begin(CALL), pool)
    clock.advance(61)
    span = await traced.span()
    assert (span.status.status_code, dict(span.attributes or {})["gateway.cancel_cause"]) == (StatusCode.ERROR, "deadline_total")


@pytest.mark.parametrize(("problem", "status"), [("pool-saturated", StatusCode.ERROR), ("worker-busy", StatusCode.ERROR)])
async def test_what_a_pool_refuses_is_a_span_too(traced: Traced, problem: str, status: StatusCode) -> None:
    call = traced.tracing.begin(CALL)
    assert call.trace is not None
    call.trace.refused(GatewayError(problem, "no"))
    span = await traced.span()
    assert (dict(span.attributes or {})["gateway.outcome"], span.status.status_code) == ("refused", status)


async def test_a_refusal_that_is_the_clients_fault_is_no_error(traced: Traced) -> None:
    call = traced.tracing.begin(CALL)
    assert call.trace is not None
    call.trace.refused(GatewayError("too-many-streams", "no"))
    assert (await traced.span()).status.status_code is StatusCode.UNSET


async def test_readers_and_gaps_are_told_so_often_and_then_counted(clock: Clock, pool: FakePool, traced: Traced) -> None:
    run = started(traced.tracing.begin(CALL), pool)
    stays = Reader(run)
    for _ in range(NEWS_LIMIT):
        Reader(run).close()
    run.gap_told(Gap(1, 2, "evicted"))
    (await pool.next_call()).end()
    stays.close()
    span = await traced.span()
    assert len(names(span)) == NEWS_LIMIT + len(["leased"])
    attributes = dict(span.attributes or {})
    assert (attributes["gateway.readers"], attributes["gateway.gaps"]) == (NEWS_LIMIT + 1, 1)


async def test_a_gap_is_an_event(clock: Clock, pool: FakePool, traced: Traced) -> None:
    run = started(traced.tracing.begin(CALL), pool)
    run.gap_told(Gap(1, 9, "slow_consumer"))
    (await pool.next_call()).end()
    gap = (await traced.span()).events[-1]
    expected = {"gateway.gap.first": 1, "gateway.gap.last": 9, "gateway.gap.reason": "slow_consumer"}
    assert (gap.name, dict(gap.attributes or {})) == ("gap", expected)


async def test_what_is_not_sampled_costs_no_trace_and_the_worker_is_told_so() -> None:
    traced = Traced(sample_ratio=0.0)
    call = traced.tracing.begin(CALL.but(correlation=Correlation("r")))
    assert call.trace is None
    assert call.correlation.traceparent is not None
    assert int(call.correlation.traceparent[-2:], 16) & 1 == 0
    # The caller has decided to sample.
    assert traced.tracing.begin(CALL).trace is not None
    assert await traced.spans() == []


async def test_a_caller_that_does_not_sample_is_followed() -> None:
    traced = Traced(sample_ratio=1.0)
    assert traced.tracing.begin(CALL.but(correlation=Correlation("r", PARENT[:-2] + "00"))).trace is None
    assert await traced.spans() == []


async def test_the_standard_variables_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "named-there")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    traced = Traced()
    assert traced.tracing.begin(CALL.but(correlation=Correlation("r"))).trace is None
    await traced.spans()
    monkeypatch.delenv("OTEL_TRACES_SAMPLER")
    traced = Traced(service_name="named-here")
    started_call = traced.tracing.begin(CALL)
    assert started_call.trace is not None
    started_call.trace.refused(GatewayError("internal", "x"))
    found = dict((await traced.span()).resource.attributes)
    assert (found["service.name"], found["deployment.environment.name"]) == ("named-here", "test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert otlp(None)._endpoint == "http://collector:4318/v1/traces"  # type: ignore[attr-defined]
    assert otlp("http://other:1/x")._endpoint == "http://other:1/x"  # type: ignore[attr-defined]


async def test_a_collector_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_module, "SHUTDOWN_TIMEOUT_S", 0.05)
    answered = threading.Event()

    class Silent(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            answered.wait(20)
            return super().export(spans)

    exporter = Silent()
    tracing = Tracing(exporter, version="1")
    call = tracing.begin(CALL)
    assert call.trace is not None
    call.trace.refused(GatewayError("internal", "x"))
    await within(tracing.aclose(), 5)
    assert exporter.get_finished_spans() == ()
    answered.set()
    await until(exporter.get_finished_spans)


async def test_a_hub_traces_what_it_accepts_and_says_what_its_pool_refuses(traced: Traced, pool: FakePool) -> None:
    hub = Hub(Catalog([pool]), {"default": pool}, HubLimits(), tracer=traced.tracing)  # type: ignore[list-item, dict-item]
    run = hub.open(CALL)
    (await pool.next_call()).end()
    pool.refusal = GatewayError("pool-saturated", "full")
    for _ in range(2):
        with pytest.raises(GatewayError):
            hub.open(CALL)
    with pytest.raises(GatewayError):
        hub.open(CALL.but(tool="nobody"))
    # As where there are other gateways: it is traced ahead of its opening, and only once.
    ahead = hub.traced(CALL)
    with pytest.raises(GatewayError) as refused:
        hub.open(ahead)
    assert ahead.trace is not None
    ahead.trace.refused(refused.value)

    spans = await traced.spans()
    assert [dict(span.attributes or {})["gateway.outcome"] for span in spans] == ["ok", "refused", "refused", "refused"]
    assert run.trace_id == TRACE_ID
    assert hub.traced(ahead) is ahead
