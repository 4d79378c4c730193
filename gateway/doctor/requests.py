"""What a path does to requests: how long they take, how large they may be, whether a WebSocket opens and an id comes back."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Mapping

import httpx
import websockets
from websockets.asyncio.client import connect

from gateway.doctor.advice import cure
from gateway.doctor.finding import Finding, Grade

SUBPROTOCOL = "snakepit.gateway.v1"
ROUNDS = 5
# The last one is cut to the gateway's own limit.
BODY_STEPS_BYTES = (64 * 1024, 1024 * 1024 + 1024, 8 * 1024 * 1024)
TIMEOUT_S = 10.0


async def latency(client: httpx.AsyncClient) -> list[Finding]:
    """How long a small request takes on a warm connection."""
    clock = asyncio.get_running_loop().time
    took = []
    for _ in range(ROUNDS + 1):
        began = clock()
        await client.get("/livez")
        took.append(clock() - began)
    median_ms = statistics.median(took[1:]) * 1000
    return [Finding("latency", Grade.OK, f"a small request takes {median_ms:.1f} ms", numbers={"median_ms": round(median_ms, 2)})]


async def request_ids(client: httpx.AsyncClient) -> list[Finding]:
    """Whether a request's id gets there and comes back."""
    mine = "doctor-1"
    came = (await client.get("/livez", headers={"X-Request-Id": mine})).headers.get("x-request-id")
    if came == mine:
        return [Finding("request id", Grade.OK, "X-Request-Id comes back as it was sent")]
    measured = f"X-Request-Id comes back as {came}" if came else "X-Request-Id does not come back"
    return [Finding("request id", Grade.NOTE, f"{measured}: the proxy's own id is what the gateway logs")]


async def websocket(url: httpx.URL, headers: Mapping[str, str], proxy: str) -> list[Finding]:
    """Whether a WebSocket opens and its first frames go both ways."""
    target = str(url.copy_with(scheme="wss" if url.scheme == "https" else "ws")).rstrip("/") + "/v1/ws"
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            connect(target, subprotocols=[websockets.Subprotocol(SUBPROTOCOL)], additional_headers=dict(headers), proxy=None) as socket,
        ):
            await socket.send('{"type":"connection_init"}')
            answer = json.loads(await socket.recv())
            if answer.get("type") == "connection_ack":
                return [Finding("websocket", Grade.OK, "a WebSocket opens and answers")]
            reason = f"it answered {answer.get('type')!r}"
    except TimeoutError:
        reason = f"no answer in {TIMEOUT_S:g} s"
    except (OSError, ValueError, websockets.WebSocketException) as exc:
        reason = str(exc) or type(exc).__name__
    return [Finding("websocket", Grade.PROBLEM, f"no WebSocket: {reason}", cure("websocket", proxy))]


async def bodies(client: httpx.AsyncClient, proxy: str, *, limit_bytes: int) -> list[Finding]:
    """How large a body may be, up to the gateway's own limit or the last step."""
    passed = 0
    for step in BODY_STEPS_BYTES:
        size = min(step, limit_bytes)
        if size <= passed:
            break
        try:
            response = await client.post("/v1/probe/body", content=b"x" * size, headers={"Content-Type": "application/octet-stream"})
            status = str(response.status_code) if response.status_code != 200 or response.json()["bytes"] != size else ""
        except httpx.TransportError as exc:
            status = type(exc).__name__
        if status:
            measured = f"a body of {passed} bytes passes, one of {size} doesn't ({status}); the gateway takes {limit_bytes}"
            return [Finding("body", Grade.WARNING, measured, cure("body", proxy), {"passed_bytes": passed, "limit_bytes": limit_bytes})]
        passed = size
    return [Finding("body", Grade.OK, f"a body of {passed} bytes passes", numbers={"passed_bytes": passed, "limit_bytes": limit_bytes})]
