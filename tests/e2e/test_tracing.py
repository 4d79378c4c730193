"""A run's trace from the client's traceparent over the gateway's span to the worker's tool, as a collector receives it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.conftest import BUILDS, packages_of
from tests.e2e.harness import Served, wait_for

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"

ADAPTER = """
import asyncio
import logging

from opentelemetry import trace

from gateway import BaseAdapter, tool


class Traced(BaseAdapter):
    @tool(supports_streaming=True)
    def spans(self):
        context = trace.get_current_span().get_span_context()
        logging.getLogger("tool").warning("I am at work")
        yield {"parent": f"{context.span_id:016x}", "trace": f"{context.trace_id:032x}", **self.trace_context}

    @tool(supports_streaming=True)
    def fails(self):
        raise ValueError("no luck")
        yield

    @tool(supports_streaming=True)
    async def waits(self):
        yield 1
        await asyncio.sleep(600)
"""


class Collector:
    """An OTLP/HTTP receiver: the spans that came, by name."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {entry.value.string_value for entry in resource.resource.attributes if entry.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans += scope.spans


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    received = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                received.take(body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield received, f"http://127.0.0.1:{server.server_port}/v1/traces"
    server.shutdown()
    thread.join()
    server.server_close()


def settings(tmp_path: Path, endpoint: str | None) -> str:
    adapter = tmp_path / "traced.py"
    adapter.write_text(ADAPTER)
    tracing = "" if endpoint is None else f'[tracing]\nendpoint = "{endpoint}"\nservice_name = "e2e"\n'
    return f'{tracing}\n[log]\nruns = "all"\naccess = true\n\n[[pools]]\nname = "p"\nadapter = "{adapter}"\nsize = 1\nconcurrency = 1\n'


def stream(gateway: Served, tool: str, **headers: str) -> httpx.Response:
    return gateway.client.get(f"/v1/tools/{tool}/stream", headers={"Accept": "application/json", **headers})


def attributes(span: Span) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, str(entry.value.WhichOneof("value"))) for entry in span.attributes}


@pytest.mark.parametrize("build", BUILDS)
def test_a_trace_goes_from_the_client_to_the_tool_and_a_collector_sees_the_run(
    serve: Callable[..., Served], tmp_path: Path, collector: tuple[Collector, str], build: str
) -> None:
    received, endpoint = collector
    often = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
    gateway = serve(settings=settings(tmp_path, endpoint), environment=often, packages=packages_of(build))
    parent = f"00-{TRACE_ID}-{PARENT_ID}-01"
    (chunk,) = stream(gateway, "spans", traceparent=parent, **{"X-Request-Id": "req-1"}).json()["chunks"]
    failed = stream(gateway, "fails").json()
    with gateway.client.stream("GET", "/v1/tools/waits/stream") as left, contextlib.suppress(StopIteration):
        lines = left.iter_lines()
        while next(lines) != "data: 1":
            pass
    wait_for(lambda: len(received.spans) == 3, "three spans")

    spans = {span.name: span for span in received.spans}
    run = spans["run spans"]
    assert (run.trace_id.hex(), run.parent_span_id.hex(), run.kind) == (TRACE_ID, PARENT_ID, Span.SPAN_KIND_SERVER)
    assert [event.name for event in run.events] == ["leased", "reader joined", "first chunk"]
    assert attributes(run)["gateway.outcome"] == "ok"
    assert received.services == {"e2e"}
    # The tool's current span is the run's.
    own = f"00-{TRACE_ID}-{run.span_id.hex()}-01"
    assert chunk == {"parent": run.span_id.hex(), "trace": TRACE_ID, "traceparent": own}

    assert spans["run fails"].status.code == Status.STATUS_CODE_ERROR
    assert attributes(spans["run fails"])["error.type"] == "ValueError"
    assert failed["trace_id"] == spans["run fails"].trace_id.hex()
    assert spans["run waits"].status.code == Status.STATUS_CODE_UNSET
    assert attributes(spans["run waits"])["gateway.cancel_cause"] == "disconnect"

    # The log says the same ids, the worker's own lines included.
    run_id = attributes(run)["gateway.run"]
    wait_for(
        lambda: any(line.get("run") == run_id and "at work" in line.get("line", "") for line in gateway.log_lines()), "the tool's line"
    )
    (ended,) = [line for line in gateway.log_lines() if line["event"] == "run ended" and line["run"] == run_id]
    assert (ended["trace_id"], ended["request_id"], ended["outcome"]) == (TRACE_ID, "req-1", "ok")
    (access,) = [line for line in gateway.log_lines() if line["event"] == "request" and line["request_id"] == "req-1"]
    assert (access["route"], access["status"], access["trace_id"]) == ("/v1/tools/{tool}/stream", 200, TRACE_ID)
    (work,) = [line for line in gateway.log_lines() if "at work" in line.get("line", "")]
    assert (work["worker"], work["pool"], work["run"]) == ("p-1", "p", run_id)


def test_without_tracing_a_traceparent_is_handed_on_and_logged(serve: Callable[..., Served], tmp_path: Path) -> None:
    gateway = serve(settings=settings(tmp_path, None))
    parent = f"00-{TRACE_ID}-{PARENT_ID}-01"
    (chunk,) = stream(gateway, "spans", traceparent=parent).json()["chunks"]
    assert chunk == {"parent": PARENT_ID, "trace": TRACE_ID, "traceparent": parent}
    (ended,) = [line for line in gateway.log_lines() if line["event"] == "run ended"]
    assert ended["trace_id"] == TRACE_ID


def test_a_collector_that_is_away_costs_nothing_but_spans(serve: Callable[..., Served], tmp_path: Path) -> None:
    gateway = serve(settings=settings(tmp_path, "http://127.0.0.1:1/v1/traces"))
    assert stream(gateway, "spans").status_code == 200
    gateway.stop()
