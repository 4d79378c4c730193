"""SIGHUP and `--reload`: other pools, other code, other limits, under streams that go on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import JOURNAL_ADAPTER, Served, events_of, read_sse, until

CODE = """
import asyncio, pathlib
from gateway import BaseAdapter, tool

class Tools(BaseAdapter):
    @tool()
    async def version(self):
        return {version}

    @tool()
    async def only_{version}(self):
        return None

    @tool(supports_streaming=True)
    async def gated(self, gate: str, count: int = 100):
        n = 0
        while not pathlib.Path(gate).exists() or n < count:
            n += 1
            yield n
            await asyncio.sleep(0.005)
"""


def code(path: Path, version: int) -> Path:
    path.write_text(CODE.format(version=version))
    return path


def pool(name: str, adapter: Path, **more: Any) -> str:
    lines = [f"{key} = {value!r}" for key, value in {"name": name, "adapter": str(adapter), "size": 1, "concurrency": 8, **more}.items()]
    return "\n".join(["[[pools]]", *lines, ""])


def hang_up(gateway: Served, settings: str) -> None:
    (gateway.directory / "gateway.toml").write_text(settings)
    gateway.process.send_signal(signal.SIGHUP)


def said(gateway: Served, event: str) -> list[dict[str, Any]]:
    return [line for line in gateway.log_lines() if line.get("event") == event]


def tools(gateway: Served) -> set[str]:
    return {tool["name"] for tool in gateway.client.get("/v1/tools").json()["tools"]}


async def test_sighup_replaces_code_and_pools_under_streams_that_miss_nothing(
    serve: Callable[..., Served], tmp_path: Path, tag: str
) -> None:
    path, gate = code(tmp_path / "tools.py", 1), tmp_path / "gate"
    gateway = serve(settings=pool("own", path) + pool("going", JOURNAL_ADAPTER))
    async with (
        gateway.http() as client,
        client.stream("GET", f"/v1/tools/gated/stream?gate={gate}&_pool=own") as own,
        client.stream("GET", f"/v1/tools/held/stream?tag={tag}&count=3&gate=2&_pool=going") as going,
    ):
        assert gateway.client.post("/v1/tools/version/call", json={}).json()["result"] == 1
        before = set(gateway.workers())
        code(path, 2)
        hang_up(gateway, pool("added", JOURNAL_ADAPTER) + pool("own", path, size=2))
        await until(lambda: said(gateway, "reloaded"), "the reload")
        # At once: the catalogue has the new pool, and nothing new for the one that goes.
        assert list(gateway.pools()) == ["added", "own"]
        assert gateway.client.get("/v1/tools/numbered/stream?tag=x&count=1&_pool=going").json()["type"] == "/problems/pool-not-found"
        await until(lambda: gateway.client.post("/v1/tools/version/call", json={}).json()["result"] == 2, "the new code")
        await until(lambda: sum(worker["state"] == "ready" for worker in gateway.pools()["own"]["workers"]) == 2, "the new size")
        assert gateway.is_ready() is False, "the old worker still has its stream"
        gate.touch()
        gateway.open_gate(tag, 2)
        stories = [await read_sse(own), await read_sse(going)]
    for story in stories:
        assert story.end is not None
        assert story.end["status"] == "ok"
        assert story.numbers == list(range(1, len(story.numbers) + 1))
    assert stories[0].chunks == stories[0].numbers
    assert len(stories[0].chunks) >= 100
    await until(lambda: not before & set(gateway.workers()), "the old processes to be gone")
    await until(lambda: said(gateway, "a pool has ended"), "the end of the old pool")
    await until(lambda: "only_2" in tools(gateway) and "only_1" not in tools(gateway), "the new catalogue")


async def test_sighup_changes_limits_and_says_what_needs_a_restart(serve: Callable[..., Served], tag: str) -> None:
    own = pool("journal", JOURNAL_ADAPTER)
    gateway = serve(settings="[server]\nretry_ms = 1000\n" + own)
    url = f"/v1/tools/numbered/stream?tag={tag}&count=1"
    assert [gateway.client.get(url).status_code for _ in range(3)] == [200] * 3
    hang_up(gateway, "[server]\nretry_ms = 7\n[limits]\nstarts_per_minute = 2\ncount_loopback = true\n[log]\nlevel = 'warning'\n" + own)
    await until(lambda: said(gateway, "needs a restart"), "the reload")
    assert said(gateway, "needs a restart")[0]["settings"] == ["server.retry_ms"]
    assert [gateway.client.get(url).status_code for _ in range(3)] == [200, 200, 429]
    assert gateway.client.get("/readyz").status_code == 200
    assert not said(gateway, "reloaded"), "the level was raised before that line"


@pytest.mark.parametrize(("text", "reason"), [("[server]\nprot = 1\n", "did you mean port"), ("[server\n", "gateway.toml")])
async def test_settings_that_cannot_be_used_change_nothing(serve: Callable[..., Served], tag: str, text: str, reason: str) -> None:
    own = pool("journal", JOURNAL_ADAPTER)
    gateway = serve(settings=own)
    before = gateway.workers()
    event = "not reloaded: the settings can't be used, nothing was changed"
    hang_up(gateway, text + own)
    await until(lambda: said(gateway, event), "the refusal")
    assert reason in said(gateway, event)[0]["reason"]
    assert (gateway.workers(), gateway.is_ready()) == (before, True)
    # The next one is another try.
    hang_up(gateway, own + pool("more", JOURNAL_ADAPTER))
    await until(lambda: list(gateway.pools()) == ["journal", "more"], "the second try")


async def test_a_pool_of_addresses_is_replaced_when_the_new_one_is_ready(serve: Callable[..., Served], tmp_path: Path) -> None:
    path = code(tmp_path / "tools.py", 1)
    other = serve(settings=pool("own", path))
    address = other.pools()["own"]["workers"][0]["address"]
    remote = "[[pools]]\nname = 'remote'\nstart_timeout_s = 2\naddresses = ['{}']\n"
    gateway = serve(settings=remote.format(address))
    hang_up(gateway, remote.format(f"unix:{tmp_path}/nobody"))
    await until(lambda: said(gateway, "the new pool is not ready: the old one stays"), "the refusal")
    assert gateway.client.post("/v1/tools/version/call", json={}).json()["result"] == 1
    hang_up(gateway, remote.format(address).replace("timeout_s = 2", "timeout_s = 3"))
    await until(lambda: said(gateway, "a pool has ended"), "the replacement")
    assert gateway.client.post("/v1/tools/version/call", json={}).json()["result"] == 1


async def test_changed_code_is_taken_over_and_old_streams_are_cancelled(serve: Callable[..., Served], tmp_path: Path) -> None:
    path = code(tmp_path / "tools.py", 1)
    gateway = serve(str(path), "--reload", "--pool-size", "1")
    await until(lambda: said(gateway, "watching"), "the watch")
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?gate={tmp_path}/never") as response:
        events = events_of(response)
        assert (await anext(events)).event == "start"
        path.write_text("def broken(:\n")
        mistake = "the old workers stay: a file has a mistake"
        await until(lambda: any(mistake in line.get("event", "") for line in gateway.log_lines()), "the mistake")
        (shown,) = [line["event"] for line in gateway.log_lines() if mistake in line.get("event", "")]
        assert "tools.py" in shown
        assert "line 1" in shown
        assert "SyntaxError" in shown
        assert "only_1" in tools(gateway)
        code(path, 2)
        await until(lambda: "only_2" in tools(gateway), "the new code")
        rest = [event async for event in events]
    assert rest[-1].json()["status"] == "cancelled"
    assert rest[-1].json()["error"]["detail"] == "The run ended: the tool's code has changed"
    await until(lambda: "only_1" not in tools(gateway), "the old code to be gone")
    assert gateway.client.post("/v1/tools/version/call", json={}).json()["result"] == 2


async def test_code_that_cannot_be_loaded_keeps_the_old_workers_and_their_streams(serve: Callable[..., Served], tmp_path: Path) -> None:
    path, gate = code(tmp_path / "tools.py", 1), tmp_path / "gate"
    gateway = serve(str(path), "--reload", "--pool-size", "1")
    await until(lambda: said(gateway, "watching"), "the watch")
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/gated/stream?gate={gate}") as response:
        path.write_text("not_an_adapter = 1\n")
        await until(lambda: any("can't start" in line.get("reason", "") for line in gateway.log_lines()), "the failure")
        gate.touch()
        story = await read_sse(response)
    assert story.end is not None
    assert story.end["status"] == "ok"
    assert gateway.client.post("/v1/tools/version/call", json={}).json()["result"] == 1
    code(path, 2)
    await until(lambda: gateway.client.post("/v1/tools/version/call", json={}).json()["result"] == 2, "the new code")
