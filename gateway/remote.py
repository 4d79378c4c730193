"""What the command line's client commands ask of a running gateway, on httpx."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from gateway.endpoints import arguments as typed

_DEPTH_LIMIT = 64
_PAGE_LIMIT = 100


class NoServer(Exception):
    """Nobody answers at the URL."""


class WrongUsage(Exception):
    """The arguments on the command line can't be read."""


class Refused(Exception):
    """The gateway answered with a problem; the text says which."""

    def __init__(self, problem: dict[str, Any]) -> None:
        fields = "".join(f"\n  {entry['field']}: {entry['detail']}" for entry in problem.get("errors", ()))
        super().__init__(f"{problem.get('status')} {problem.get('title')}: {problem.get('detail')}{fields}")
        self.problem = problem


async def get(url: str, path: str) -> Any:
    """Return the JSON document at a path."""
    async with _client(url) as client:
        return await _document(client, "GET", path)


async def runs(url: str, *, state: str | None, tool: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the newest runs, at most `limit`, in as many pages as that takes."""
    filters = {name: value for name, value in (("state", state), ("tool", tool)) if value is not None}
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    async with _client(url) as client:
        while len(found) < limit:
            query = {**filters, **cursor, "limit": str(min(limit - len(found), _PAGE_LIMIT))}
            page = await _document(client, "GET", "/v1/runs", params=query)
            found += page["runs"]
            if page["cursor"] is None:
                break
            cursor = {"cursor": page["cursor"]}
    return found


async def live_runs(url: str, *, filters: dict[str, str], limit: int) -> Any:
    """Return a page of everybody's open runs on one gateway, the newest; its `total` says how many there are."""
    async with _client(url) as client:
        return await _document(client, "GET", "/v1/admin/runs", params={**filters, "limit": str(min(limit, _PAGE_LIMIT))})


async def cancel(url: str, run: str) -> Any:
    """Cancel a run and return its state."""
    async with _client(url) as client:
        return await _document(client, "DELETE", f"/v1/runs/{_quoted(run)}")


async def call(url: str, tool: str, pairs: list[str]) -> Any:
    """Execute a unary tool; return its result and metadata."""
    async with _client(url) as client:
        body = await _arguments(client, tool, pairs)
        return await _document(client, "POST", f"/v1/tools/{_quoted(tool)}/call", json=body)


async def stream(
    url: str, tool: str, pairs: list[str], show: Callable[[dict[str, Any]], None], *, session: str | None, timeout_s: float | None
) -> dict[str, Any] | None:
    """Execute a streaming tool; `show` gets every event as it comes. Return the end event, None for a stream that was cut."""
    options: dict[str, str] = {}
    if session is not None:
        options["_session"] = session
    if timeout_s is not None:
        options["_timeout_ms"] = str(int(timeout_s * 1000))
    async with _client(url) as client:
        body = await _arguments(client, tool, pairs)
        headers = {"Accept": "application/x-ndjson"}
        try:
            async with client.stream("POST", f"/v1/tools/{_quoted(tool)}/stream", params=options, json=body, headers=headers) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise Refused(_problem(response))
                async for line in response.aiter_lines():
                    event = json.loads(line) if line else {}
                    if event:
                        show(event)
                    if "end" in event:
                        return dict(event["end"])
        except httpx.TransportError:
            # Bytes have flowed, or nobody was there: _arguments has already told those apart.
            return None
    return None


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _client(url: str) -> httpx.AsyncClient:
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise WrongUsage(f"{url!r} is no URL: {exc}") from exc
    if base.scheme not in ("http", "https") or not base.host:
        raise WrongUsage(f"{url!r} is no URL of a gateway; such as http://localhost:8000")
    # A stream may be silent for long; its heartbeat, every 10 s by default, shows that it lives.
    return httpx.AsyncClient(base_url=base, timeout=httpx.Timeout(10, read=60), trust_env=False)


async def _arguments(client: httpx.AsyncClient, tool: str, pairs: list[str]) -> dict[str, Any]:
    """Return the arguments, typed by the tool's schema."""
    split = [pair.partition("=") for pair in pairs]
    for name, equals, _ in split:
        if not equals or not name:
            raise WrongUsage(f"{name!r} is no argument; they are written key=value")
    description = await _document(client, "GET", f"/v1/tools/{_quoted(tool)}")
    return typed.from_query([(name, value) for name, _, value in split], description["parameters"], depth_limit=_DEPTH_LIMIT)


async def _document(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> Any:
    try:
        response = await client.request(method, path, **options)
    except httpx.TransportError as exc:
        raise NoServer(f"{client.base_url}: {exc or type(exc).__name__}") from exc
    if response.is_error:
        raise Refused(_problem(response))
    return response.json()


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        return dict(response.json())
    except ValueError:
        return {"status": response.status_code, "title": response.reason_phrase, "detail": response.text[:200]}
