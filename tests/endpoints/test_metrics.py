"""What a scrape says after this and that; that its labels are bounded; that the docs and the dashboard speak of what there is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from gateway.app import Gateway, create_app
from gateway.bridge.server import BridgeServer
from gateway.bridge.service import BridgeService
from gateway.call import ToolCall
from gateway.caller import ANONYMOUS
from gateway.endpoints.gauges import Gauges
from gateway.errors import GatewayError
from gateway.events import Chunks
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc
from gateway.runs.policy import Cause, Overflow, ReaderOptions
from gateway.settings import ServerSettings, Settings
from gateway.telemetry.metrics import Metrics, RunTotals
from tests.conftest import Running, Serve, until
from tests.endpoints.conftest import NDJSON, SSE, raw
from tests.endpoints.test_websocket import joined

ROOT = Path(__file__).resolve().parents[2]
STREAM = "/v1/tools/count/stream"


class Scrape:
    """The samples of one scrape; `value("gateway_runs_open", state="queued")`, 0 where there is none."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {family.name: family for family in parse(text)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value for family in self.families.values() for sample in family.samples
        }

    def __len__(self) -> int:
        return len(self._samples)

    def value(self, name: str, **labels: str) -> float:
        return self._samples.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all labels that aren't named."""
        wanted = labels.items()
        return sum(value for (sample, found), value in self._samples.items() if sample == name and wanted <= found)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The samples that aren't 0, by one label."""
        found = {dict(labels)[label] for sample, labels in self._samples if sample == name}
        return {key: total for key in found if (total := self.total(name, **{label: key}))}


async def scrape(running: Running) -> Scrape:
    response = await running.client.get("/metrics")
    assert response.status_code == 200
    return Scrape(response.text)


async def test_a_scrape_counts_runs_by_outcome(running: Running) -> None:
    async def stream(tool: str = "count", **headers: str) -> httpx.Response:
        return await running.client.get(f"/v1/tools/{tool}/stream", headers={**SSE, **headers})

    running.pool.script = lambda call: (call.send(1, 22), call.send(333), call.end())
    for _ in range(3):
        await stream()
    running.pool.script = lambda call: call.fail()
    await stream()
    running.pool.script = lambda call: call.fail(GatewayError("worker-timeout", "too late"))
    await stream()
    running.pool.script = lambda call: running.gateway.hub.get(call.run_id, ANONYMOUS).cancel(Cause.CLIENT)
    await stream()
    running.pool.script = lambda call: running.gateway.hub.get(call.run_id, ANONYMOUS).cancel(Cause.SHUTDOWN)
    await stream("opaque")

    now = await scrape(running)
    count = {"tool": "count", "pool": "default"}
    assert now.value("gateway_runs_started_total", **count) == 6
    assert now.value("gateway_runs_started_total", tool="opaque", pool="default") == 1
    ended = {
        outcome: now.value("gateway_runs_ended_total", outcome=outcome, **count) for outcome in ("ok", "error", "deadline", "cancelled")
    }
    assert ended == {"ok": 3, "error": 1, "deadline": 1, "cancelled": 1}
    assert now.by("gateway_runs_ended_total", "outcome") == {**ended, "shutdown": 1}
    assert now.by("gateway_run_cancels_total", "cause") == {"client": 1, "shutdown": 1}
    assert (now.value("gateway_run_chunks_total", **count), now.value("gateway_run_chunk_bytes_total", **count)) == (9, 18)
    assert now.value("gateway_run_duration_seconds_count", **count) == 6
    assert now.value("gateway_run_queue_seconds_count", **count) == 6
    assert now.value("gateway_run_first_chunk_seconds_count", **count) == 3
    assert now.value("gateway_run_chunk_gap_seconds_count", **count) == 3
    assert now.total("gateway_runs_open") == 0


async def test_what_is_open_is_seen_while_it_is(running: Running) -> None:
    async with running.client.stream("GET", STREAM, headers=SSE) as response:
        call = await running.pool.next_call()
        call.send(1)
        run = response.headers["content-location"].removesuffix("/events")
        async with running.client.stream("GET", f"{run}/events?_role=observer", headers=NDJSON), joined(running) as socket:
            await socket.say("attach", id="a", payload={"run": run.rpartition("/")[2]})
            await socket.hear_until("start")
            await running.client.post("/v1/sessions", json={"id": "s"})
            now = await scrape(running)
            readers = {("sse", "subscriber"): 1, ("ndjson", "observer"): 1, ("websocket", "subscriber"): 1, ("websocket", "observer"): 0}
            assert {key: now.value("gateway_readers", format=key[0], role=key[1]) for key in readers} == readers
            assert now.total("gateway_readers") == 3
            assert now.by("gateway_runs_open", "state") == {"running": 1}
            assert now.value("gateway_websockets_open") == 1
            assert now.value("gateway_sessions") == 1
            assert now.value("gateway_log_bytes") == running.gateway.hub.budget.size_bytes > 0
            assert now.value("gateway_log_limit_bytes") == running.gateway.hub.limits.log_bytes
            assert now.value("gateway_pool_in_flight", pool="default") == 1
            assert now.value("gateway_pool_workers", pool="default", state="ready") == 1
            # Live, not only when the run is over.
            assert now.total("gateway_run_chunks_total") == 1
        await until(lambda: len(running.gateway.hub.get(call.run_id, ANONYMOUS).readers) == 1)
        call.end()
        await response.aread()
    now = await scrape(running)
    assert (now.total("gateway_readers"), now.total("gateway_runs_open"), now.value("gateway_websockets_open")) == (0, 0, 0)


async def test_collected_answers_are_read_as_json(running: Running) -> None:
    stream = await raw(running, "POST", "/v1/tools/add/call", b'{"a":1,"b":2}')
    call = await running.pool.next_call()
    now = await scrape(running)
    assert now.by("gateway_readers", "format") == {"json": 1}
    call.send(3)
    call.end()
    await stream.until(b'{"result":3')


async def test_a_scrape_in_the_middle_of_200_runs_is_consistent(running: Running) -> None:
    running.pool.busy = True
    for _ in range(200):
        await raw(running, "GET", STREAM, Accept="text/event-stream")
    await until(lambda: running.open_runs() == 200)
    for ticket in running.pool.tickets[:120]:
        ticket.grant()
    for call in running.pool.calls[:50]:
        call.send(1, 2)
    for call in running.pool.calls[:20]:
        call.end()
    running.pool.tickets[-1].refuse(GatewayError("queue-timeout", "too late"))
    now = await scrape(running)
    assert now.by("gateway_runs_open", "state") == {"running": 100, "queued": 79}
    assert now.total("gateway_runs_started_total") - now.total("gateway_runs_ended_total") == now.total("gateway_runs_open")
    assert now.value("gateway_pool_queued", pool="default") == 79
    assert now.value("gateway_pool_in_flight", pool="default") == 100
    # 120 got a worker, and one gave up.
    assert now.total("gateway_run_queue_seconds_count") == 121
    assert now.total("gateway_run_chunks_total") == 100
    assert now.total("gateway_readers") >= now.total("gateway_runs_open")


async def test_a_leaving_reader_is_a_cancel_and_a_deadline_is_one(running: Running) -> None:
    stream = await raw(running, "GET", STREAM, Accept="text/event-stream")
    call = await running.pool.next_call()
    stream.cut()
    await call.cancelled.wait()
    running.pool.script = lambda call: call.send(1)
    await running.client.get(f"{STREAM}?_idle_timeout_ms=20")
    now = await scrape(running)
    assert now.by("gateway_run_cancels_total", "cause") == {"disconnect": 1, "deadline_idle": 1}
    assert now.by("gateway_runs_ended_total", "outcome") == {"cancelled": 1, "deadline": 1}


async def test_gaps_that_readers_are_told_are_counted(serve: Serve) -> None:
    limits = {"run_limit_chunks": 10, "plain_run_limit_bytes": 100_000}
    async with serve(runlog=limits) as running:
        running.pool.script = lambda call: [call.send(number) for number in range(100)]
        response = await running.client.post("/v1/tools/count/runs")
        run = response.headers["location"]
        await until(lambda: running.gateway.hub.get(run.rpartition("/")[2], ANONYMOUS).chunks == 100)
        running.pool.calls[0].end()
        await running.client.get(f"{run}/events", headers=SSE)
        now = await scrape(running)
        assert now.by("gateway_gaps_total", "reason") == {"evicted": 1}
        assert now.by("gateway_gap_chunks_total", "reason") == {"evicted": 90}


@pytest.mark.parametrize("streaming", [True, False])
async def test_grpc_callers_are_readers(running: Running, streaming: bool) -> None:
    bridge = BridgeServer(BridgeService(running.gateway.hub, running.gateway.sessions), "127.0.0.1:0")
    await bridge.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{bridge.port}") as channel:
        stub: Any = pb_grpc.BridgeServiceStub(channel)
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"))
        asked = pb.ExecuteToolRequest(session_id="s", tool_name="opaque")
        answer = stub.ExecuteStreamingTool(asked) if streaming else stub.ExecuteTool(asked)
        waiting = asyncio.ensure_future(answer.read() if streaming else answer)
        call = await running.pool.next_call()
        await until(lambda: running.gateway.hub.get(call.run_id, ANONYMOUS).readers)
        now = await scrape(running)
        assert now.by("gateway_readers", "format") == {"grpc": 1}
        call.send(1)
        call.end()
        await waiting
    await bridge.stop(0)


async def test_a_reader_that_is_moved_on_is_told_a_gap(running: Running) -> None:
    running.pool.busy = True
    hub = running.gateway.hub
    run = hub.open(ToolCall("count", {}, 60.0))
    reader = run.subscribe(lambda: None, ANONYMOUS, ReaderOptions(overflow=Overflow.LATEST, lag_bytes=1000))
    running.pool.tickets[0].grant()
    for number in range(100):
        running.pool.calls[0].send(number)
    seen = 0
    while (event := reader.take()) is not None:
        seen += len(event.payloads) if isinstance(event, Chunks) else 0
    assert 0 < seen < 100
    now = await scrape(running)
    assert now.by("gateway_gaps_total", "reason") == {"slow_consumer": 1}
    assert now.by("gateway_gap_chunks_total", "reason") == {"slow_consumer": 100 - seen}


async def test_what_the_budget_takes_back_is_counted(serve: Serve) -> None:
    async with serve(runlog={"limit_bytes": 100_000}) as running:
        running.pool.script = lambda call: [call.send("x" * 1000) for _ in range(200)]
        await running.client.post("/v1/tools/count/runs")
        await until(lambda: running.gateway.hub.budget.reclaimed_bytes)
        now = await scrape(running)
        assert now.value("gateway_log_reclaimed_bytes_total") == running.gateway.hub.budget.reclaimed_bytes
        assert now.value("gateway_log_bytes") <= 100_000


async def test_a_thousand_unknown_tools_add_no_series(running: Running) -> None:
    async def ask(name: str) -> None:
        assert (await running.client.post(f"/v1/tools/{name}/stream")).status_code == 404
        assert (await running.client.get(f"/v1/tools/{name}/stream")).status_code == 404
        assert (await running.client.get(f"/{name}")).status_code == 404

    await ask("nothing")
    await scrape(running)  # which is a series itself from now on
    before = await scrape(running)
    for number in range(1000):
        await ask(f"tool-{number}")
    after = await scrape(running)
    assert len(after) == len(before)
    assert after.value("gateway_runs_refused_total", tool="other", problem="tool-not-found") == 1001
    assert after.value("gateway_http_responses_total", route="/v1/tools/{tool}/stream", status="4xx") == 2002
    assert after.value("gateway_http_responses_total", route="other", status="4xx") == 1001


async def test_refusals_of_known_tools_bear_their_name(running: Running) -> None:
    await running.client.post(STREAM, json={"count": "many"})
    running.pool.refusal = GatewayError("pool-saturated", "full", retry_after_s=1)
    await running.client.post(STREAM)
    now = await scrape(running)
    assert now.value("gateway_runs_refused_total", tool="count", problem="invalid-arguments") == 1
    assert now.value("gateway_runs_refused_total", tool="count", problem="pool-saturated") == 1
    # As if they had never been.
    assert now.total("gateway_runs_started_total") == now.total("gateway_runs_ended_total") == 0


async def ask_all_kinds(running: Running) -> None:
    """Seven responses: two streams (one fails before its first chunk), a call, a run's state, two that know no such thing, a scrape."""
    client = running.client
    running.pool.script = lambda call: (call.send(1), call.end())
    streamed = await client.get(STREAM, headers=SSE)
    await client.post("/v1/tools/add/call", json={"a": 1, "b": 2})
    await client.get(streamed.headers["content-location"].removesuffix("/events"))
    await client.get("/v1/runs/r_unknown")
    await client.get("/nowhere/at/all")
    running.pool.script = lambda call: call.fail()
    assert (await client.get(STREAM, headers=SSE)).status_code == 400
    await client.get("/metrics")


@pytest.mark.parametrize("origins", [(), ("https://app.example.com",)], ids=["past ASGI", "behind a middleware"])
async def test_responses_are_counted_by_route_and_status_on_every_way(serve: Serve, origins: tuple[str, ...]) -> None:
    async with serve(allowed_origins=origins) as running:
        await ask_all_kinds(running)
        now = await scrape(running)
        family = now.families["gateway_http_responses"]
        assert {(sample.labels["route"], sample.labels["status"]): sample.value for sample in family.samples} == {
            ("/v1/tools/{tool}/stream", "2xx"): 1,
            ("/v1/tools/{tool}/stream", "4xx"): 1,
            ("/v1/tools/{tool}/call", "2xx"): 1,
            ("/v1/runs/{run}", "2xx"): 1,
            ("/v1/runs/{run}", "4xx"): 1,
            ("other", "4xx"): 1,
            ("/metrics", "2xx"): 1,
        }


async def test_openmetrics_for_who_asks_for_it(running: Running) -> None:
    response = await running.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert response.text.endswith("# EOF\n")
    assert "gateway_runs_open" in {family.name for family in parse_openmetrics(response.text)}


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_many_tools_are_written_in_steps_of_one_moment(running: Running, accept: str) -> None:
    tally = running.gateway.tally
    assert tally is not None
    for number in range(100):
        tally.tool(f"tool-{number}", "default").started = 1
    steps = 0

    def go_on() -> None:
        # The world turns while the text is made.
        nonlocal steps
        steps += 1
        for tool in tally.tools:
            tool.started += 1
            tool.run_ended("ok", 1.0)
        if steps < 1000 and not scraping.done():
            asyncio.get_running_loop().call_soon(go_on)

    metrics = Metrics(version="1", transport="lane", collectors=[RunTotals(tally)])
    scraping = asyncio.ensure_future(metrics.scrape(accept))
    await asyncio.sleep(0)
    go_on()
    body, _ = await scraping
    families = list((parse_openmetrics if "openmetrics" in accept else parse)(body.decode()))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples if sample.labels.get("tool", "").startswith("tool-")]
    assert {sample.value for sample in samples if sample.name == "gateway_runs_started_total"} == {1.0}
    assert {sample.value for sample in samples if sample.name != "gateway_runs_started_total"} == {0.0}
    assert sum(sample.name == "gateway_run_duration_seconds_count" for sample in samples) == 100
    assert steps > 50


@pytest.mark.parametrize("accept", ["*/*", "text/html", "text/plain;version=1.x", "application/openmetrics-text;version=old", "é", ",;=,"])
async def test_any_accept_is_answered(running: Running, accept: str) -> None:
    response = await running.client.get("/metrics", headers={"Accept": accept.encode()})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"


async def test_without_metrics_there_is_no_route_and_nothing_is_counted(serve: Serve) -> None:
    async with serve(metrics=False) as running:
        running.pool.script = lambda call: (call.send(1), call.end())
        assert (await running.client.get(STREAM, headers=SSE)).status_code == 200
        assert (await running.client.get("/metrics")).status_code == 404
        assert (running.gateway.hub.tally, running.app.responses) == (None, None)


async def test_apps_in_one_process_share_nothing(serve: Serve) -> None:
    async with serve() as first:
        first.pool.script = lambda call: (call.send(1), call.end())
        await first.client.get(STREAM, headers=SSE)
        create_app(gateway=Gateway(Settings(server=ServerSettings(grpc_address=""))))
        assert (await scrape(first)).total("gateway_runs_ended_total") == 1
        async with serve() as second:
            assert (await scrape(second)).total("gateway_runs_ended_total") == 0


async def test_restarts_are_those_of_the_places_and_not_of_each_process(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def worker(name: str, state: str, restarts: int) -> Mapping[str, Any]:
        return {"id": name, "state": state, "in_flight": 0, "concurrency": 2, "restarts": restarts, "address": ""}

    workers = [worker("w-1", "draining", 3), worker("w-1", "ready", 4), worker("w-2", "ready", 1)]
    entry = {**running.pool.snapshot(), "workers": workers, "stuck": 2}
    monkeypatch.setattr(running.pool, "snapshot", lambda: entry)
    now = await scrape(running)
    assert now.value("gateway_pool_worker_restarts_total", pool="default") == 5
    assert now.value("gateway_pool_places", pool="default") == 4
    assert now.value("gateway_pool_stuck_total", pool="default") == 2
    assert now.value("gateway_pool_workers", pool="default", state="draining") == 1


class SharedLogOfNobody:
    available = False
    queued_bytes = 4711


async def all_metrics(running: Running) -> dict[str, str]:
    """Every metric's name as it is in a scrape, and its type; those of a shared log, too."""
    gateway = running.gateway
    families = [*(await scrape(running)).families.values()]
    families += Gauges(gateway.hub, gateway.sockets, gateway.sessions, SharedLogOfNobody()).collect()
    return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}


async def test_tasks_are_those_of_sockets_and_go_with_them(running: Running) -> None:
    before = (await scrape(running)).value("gateway_tasks")
    async with joined(running) as client:
        open_now = await scrape(running)
        assert open_now.value("gateway_tasks") >= before + 2
        await client.subscribe("a")
        await running.pool.next_call()
        assert (await scrape(running)).value("gateway_tasks") == open_now.value("gateway_tasks")
    await until(lambda: len(running.gateway.sockets) == 0)
    assert (await scrape(running)).value("gateway_tasks") <= before


async def test_a_shared_logs_state_is_shown(running: Running) -> None:
    gateway = running.gateway
    families = Gauges(gateway.hub, gateway.sockets, gateway.sessions, SharedLogOfNobody()).collect()
    values = {sample.name: sample.value for family in families for sample in family.samples}
    assert (values["gateway_shared_log_available"], values["gateway_shared_log_queued_bytes"]) == (0, 4711)


async def test_the_docs_list_exactly_the_metrics_that_there_are(running: Running) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == await all_metrics(running)
    documented = {name: frozenset(re.findall(r"`(\w+)`", labels)) for name, _, labels in rows}
    running.pool.script = lambda call: (call.send(1), call.send(2), call.end())
    await running.client.get(STREAM, headers=SSE)
    running.pool.refusal = GatewayError("pool-saturated", "full")
    await running.client.get(STREAM, headers=SSE)
    for family in (await scrape(running)).families.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert family.samples, name
        assert {frozenset(sample.labels) - {"le"} for sample in family.samples} == {documented[name]}, name


async def test_the_dashboard_shows_exactly_the_metrics_that_there_are(running: Running) -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
    texts = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    texts += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if isinstance(variable["query"], dict)]
    known = await all_metrics(running)
    shown = {name for text in texts for name in re.findall(r"\b(?:gateway|process)_\w+", text)}
    histograms = {f"{name}_bucket": name for name, kind in known.items() if kind == "histogram"}
    assert {histograms.get(name, name) for name in shown} == set(known)


async def test_the_dashboards_labels_are_those_of_the_metrics(running: Running) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    labels = {name: {*re.findall(r"`(\w+)`", text), "instance", "le"} for name, _, text in rows}
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            (name,) = {found.removesuffix("_bucket") for found in re.findall(r"\b(?:gateway|process)_\w+", target["expr"])}
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            used = {label.strip() for group in grouped for label in group.split(",")}
            used |= set(re.findall(r"(\w+)=~", target["expr"])) | set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert used <= labels[name], target["expr"]


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in (panel["gridPos"],)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
