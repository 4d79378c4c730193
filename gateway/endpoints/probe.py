"""What `gateway doctor` measures a path with: `/v1/probe/stream`, a stream whose every event says when it was sent, and what became of it.

No tool, no run and no worker: only what lies between a client and this process. The stream has the headers of a real one. Also
`POST /v1/probe/body`, which counts what arrives of a body. Everything is bounded: how long a probe takes and how much it sends by its
request's own limits, how many are open at once by OPEN_LIMIT.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import orjson
from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway import timers
from gateway.codec import sse
from gateway.endpoints.contract import PROBE_BODY, PROBE_STATE, PROBE_STREAM
from gateway.endpoints.exchange import AsgiExchange, Exchange
from gateway.endpoints.paging import read_query
from gateway.endpoints.requests import read_body
from gateway.endpoints.response import constant_headers
from gateway.errors import GatewayError
from gateway.runs.identity import new_run_id
from gateway.runs.policy import invalid_option

OPEN_LIMIT = 20
KEPT_LIMIT = 200
DURATION_LIMIT_MS = 15 * 60 * 1000
# Over what it should take; then a client that doesn't read is cut.
PATIENCE_S = 30.0
# name: (default, least, most)
PARAMETERS = {
    "chunks": (10, 0, 1000),
    "interval_ms": (100, 1, 60_000),
    "bytes": (0, 0, 65_536),
    "silent_ms": (0, 0, DURATION_LIMIT_MS),
    "heartbeat_ms": (0, 0, 60_000),
}
# What proxies add to a request; of these the names are told, and the values where they say nothing of who is where.
_MARKS = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "x-real-ip", "cf-ray", "x-amzn-trace-id", "x-envoy-external-address")
_TELLING = ("via", "accept-encoding")


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """Events every `interval_ms`, each with `padding_bytes` more; then silence, with a heartbeat every `heartbeat_ms`, 0: none."""

    chunks: int
    interval_ms: int
    padding_bytes: int
    silent_ms: int
    heartbeat_ms: int

    @property
    def duration_s(self) -> float:
        """How long it takes."""
        return (self.chunks * self.interval_ms + self.silent_ms) / 1000


class Probes:
    """The probes that are open, and what became of the last KEPT_LIMIT: `open`, `done` or `left`, and after how many milliseconds."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, tuple[str, int | None]] = OrderedDict()
        self._open = 0

    def begin(self) -> str:
        """Return a new probe's id.

        Raises:
            GatewayError: `too-many-streams`.
        """
        if self._open >= OPEN_LIMIT:
            raise GatewayError("too-many-streams", f"{OPEN_LIMIT} probes are open, the limit", retry_after_s=5)
        self._open += 1
        probe = f"p_{new_run_id()[2:]}"
        self._states[probe] = ("open", None)
        if len(self._states) > KEPT_LIMIT:
            self._states.popitem(last=False)
        return probe

    def over(self, probe: str, state: str, after_ms: int) -> None:
        """Note how a probe ended."""
        self._open -= 1
        if probe in self._states:
            self._states[probe] = (state, after_ms)

    def state(self, probe: str) -> tuple[str, int | None] | None:
        """Return what became of a probe; None for one that isn't known here."""
        return self._states.get(probe)


class ProbeStream(Response):
    """One probe as a response; a StreamedResponse without a run."""

    def __init__(self, plan: ProbePlan, probes: Probes, told: dict[str, object]) -> None:
        super().__init__()
        self._plan = plan
        self._probes = probes
        self._told = told
        self._id = probes.begin()
        self._exchange: Exchange | None = None
        self._timer: timers.Timer | None = None
        self._clock = timers.running()
        self._began = self._clock.time()
        self._sent = 0
        self._state = "left"
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await AsgiExchange(scope, receive, send).carry(self)

    def answer(self, exchange: Exchange) -> None:
        self._exchange = exchange
        exchange.on_lost = self.close
        exchange.begin(constant_headers(sse.MEDIA_TYPE), (), _event("probe", {"probe": self._id, **self._told}))
        self._wait()

    def close(self) -> None:
        if not self._over:
            self._over = True
            self._exchange = None
            if self._timer is not None:
                self._timer.cancel()
            self._probes.over(self._id, self._state, self._now_ms())

    def _wait(self) -> None:
        """Wait for the next moment that something is to be sent."""
        plan, now_ms = self._plan, self._now_ms()
        if self._sent < plan.chunks:
            due_ms = (self._sent + 1) * plan.interval_ms
        else:
            due_ms = plan.chunks * plan.interval_ms + plan.silent_ms
            if plan.heartbeat_ms:
                due_ms = min(due_ms, now_ms + plan.heartbeat_ms)
        self._timer = self._clock.call_at(self._began + max(due_ms, now_ms + 1) / 1000, self._tick)

    def _tick(self) -> None:
        plan, exchange = self._plan, self._exchange
        if exchange is None:
            return
        now_ms = self._now_ms()
        if not exchange.writable:
            if now_ms > (plan.duration_s + PATIENCE_S) * 1000:
                exchange.abort()
                self.close()
                return
        elif self._sent < plan.chunks:
            self._sent += 1
            exchange.write(_event(None, {"n": self._sent, "at_ms": now_ms, "padding": "x" * plan.padding_bytes}))
        elif now_ms >= plan.duration_s * 1000:
            self._state = "done"
            exchange.finish(_event("end", {"at_ms": now_ms}))
            self.close()
            return
        else:
            exchange.write(b": hb\n")
        self._wait()

    def _now_ms(self) -> int:
        return round((self._clock.time() - self._began) * 1000)


def router(*, body_limit_bytes: int, heartbeat_s: float) -> APIRouter:
    """Return the routes of this module. The limits are the server's, which a probe's first event tells."""
    routes = APIRouter(tags=["operations"])
    probes = Probes()

    async def stream(request: Request) -> Response:
        told = {"heartbeat_ms": int(heartbeat_s * 1000), "body_limit_bytes": body_limit_bytes, "headers": _seen(request.headers)}
        return ProbeStream(read_plan(request), probes, told)

    async def state(probe: str) -> Response:
        found = probes.state(probe)
        if found is None:
            raise GatewayError("route-not-found", f"No probe {probe[:40]!r} is known here")
        return JSONResponse({"probe": probe, "state": found[0], "after_ms": found[1]}, headers={"Cache-Control": "no-store"})

    async def body(request: Request) -> Response:
        return JSONResponse({"bytes": len(await read_body(request, limit_bytes=body_limit_bytes))})

    routes.add_api_route("/v1/probe/stream", stream, methods=["GET"], **PROBE_STREAM)
    routes.add_api_route("/v1/probe/body", body, methods=["POST"], **PROBE_BODY)
    routes.add_api_route("/v1/probe/{probe}", state, methods=["GET"], **PROBE_STATE)
    return routes


def read_plan(request: Request) -> ProbePlan:
    """Return what a request wants to be sent.

    Raises:
        GatewayError: `invalid-option`, a parameter is unknown, or over what is allowed.
    """
    asked = read_query(request, tuple(PARAMETERS))
    values: dict[str, int] = {}
    for name, (default, least, most) in PARAMETERS.items():
        text = asked.get(name)
        if text is not None and not (text.isascii() and text.isdigit() and len(text) <= 7 and least <= int(text) <= most):
            raise invalid_option(name, f"is {text[:40]!r}; allowed: a whole number from {least} to {most}")
        values[name] = default if text is None else int(text)
    plan = ProbePlan(values["chunks"], values["interval_ms"], values["bytes"], values["silent_ms"], values["heartbeat_ms"])
    if plan.duration_s * 1000 > DURATION_LIMIT_MS:
        raise invalid_option("chunks", f"and interval_ms and silent_ms make {plan.duration_s:g} s; allowed: {DURATION_LIMIT_MS // 1000} s")
    return plan


def _seen(headers: Headers) -> dict[str, str]:
    return {name: headers[name][:200] for name in _TELLING if name in headers} | {name: "" for name in _MARKS if name in headers}


def _event(name: str | None, data: object) -> bytes:
    head = b"" if name is None else b"event: %b\n" % name.encode()
    return b"%bdata: %b\n\n" % (head, orjson.dumps(data))
