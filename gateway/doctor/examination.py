"""All checks of one path, in an order in which each knows what it needs; those that only wait go on beside each other."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable

import httpx

from gateway.client.connection import address
from gateway.doctor import path, requests, streaming
from gateway.doctor.advice import UNKNOWN, proxy_of
from gateway.doctor.finding import Finding, Grade, NoGateway
from gateway.doctor.probe import Plan, read_probe


async def examine(url: str, *, key: str | None = None, idle_s: float = 20.0) -> list[Finding]:
    """Return what there is to say of the path to a gateway. `key` is a bearer token; None: the environment's GATEWAY_KEY.

    Raises:
        NoGateway: nobody answers, or what does is no gateway.
        ValueError: it is no URL of a gateway, or no key of anybody's.
    """
    gateway = address(url, key, ssl.create_default_context(), None)
    base = gateway.url
    connection = await path.connect(base)
    if connection.distrust:
        # Nothing is sent, least of all a key, to who knows whom.
        return path.judge(connection, UNKNOWN, is_local=False)
    async with httpx.AsyncClient(**{**gateway.options(), "timeout": requests.TIMEOUT_S}) as client:
        try:
            greeting = await client.get("/livez")
            first = await read_probe(client, Plan(chunks=0))
        except httpx.HTTPError as exc:
            raise NoGateway(f"{base}: {exc or type(exc).__name__}") from exc
        proxy = proxy_of({name.lower(): value for name, value in greeting.headers.items()})
        findings = path.judge(connection, proxy, is_local=_is_local(base.host))
        if proxy != UNKNOWN:
            findings.append(Finding("proxy", Grade.NOTE, f"the answers speak of {proxy}"))
        if not first.first:
            return [*findings, _no_probe(first.status, first.problem)]
        findings += await requests.latency(client)
        findings += await requests.request_ids(client)
        # Measured alone: what goes on beside it would be its jitter.
        findings += await streaming.buffering(client, proxy)
        waiting = {
            "heartbeat": streaming.heartbeats(client, proxy),
            "compression": streaming.compression(client, proxy),
            "disconnect": streaming.disconnect(client, proxy),
            "websocket": requests.websocket(base, gateway.headers, proxy),
            "body": requests.bodies(client, proxy, limit_bytes=first.first["body_limit_bytes"]),
            "idle cut": streaming.idle(client, proxy, seconds=idle_s),
        }
        async with asyncio.TaskGroup() as tasks:
            checks = [tasks.create_task(_guarded(name, check)) for name, check in waiting.items()]
            for check in checks:
                findings += await check
    return findings


async def _guarded(name: str, check: Awaitable[list[Finding]]) -> list[Finding]:
    """Return what a check has found; one whose connection fails has found that."""
    try:
        return await check
    except httpx.HTTPError as exc:
        return [Finding(name, Grade.PROBLEM, f"the connection failed: {exc or type(exc).__name__}")]


def _no_probe(status: int, problem: str) -> Finding:
    advice = {
        401: "give a key: --key, or GATEWAY_KEY",
        403: "the key may not do this",
        404: "is it a gateway? One of this version has /v1/probe/stream, unless `[server] probes = false`",
        429: "other probes are open; try again",
    }
    measured = "the probe stream has no beginning: something holds it back" if status == 200 else f"no probe stream: {status} {problem}"
    return Finding("probe", Grade.PROBLEM, measured, advice.get(status, ""))


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
