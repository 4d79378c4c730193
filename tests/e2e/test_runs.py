"""Runs that outlive their readers, with real workers: who comes back gets everything, and the tool ran once."""

from __future__ import annotations

import asyncio

import httpx
from httpx_sse import ServerSentEvent

from tests.e2e.harness import Served, events_of, read_sse, until

GATED = "/v1/tools/gated/stream"
NUMBERED = "/v1/tools/numbered/stream"


async def test_a_reader_that_comes_back_within_the_grace_gets_the_rest(gateway: Served, tag: str) -> None:
    query = f"?tag={tag}&_on_disconnect=grace:30s"
    async with gateway.http() as client:
        async with client.stream("GET", GATED + query) as response:
            last = (await first_events(response, 2))[-1].id
        gateway.open_gate(tag, 2)
        run = last.partition(".")[0]
        await until(lambda: gateway.client.get(f"/v1/runs/{run}").json()["chunks"] == 2, "a chunk that nobody reads")
        gateway.open_gate(tag, 3)
        async with client.stream("GET", GATED + query, headers={"Last-Event-ID": last}) as response:
            story = await read_sse(response)
        again = await client.get(GATED + query, headers={"Last-Event-ID": f"{run}.end"})
    assert ([chunk["n"] for chunk in story.chunks], story.numbers) == ([2, 3], [2, 3])
    assert story.end is not None
    assert (story.end["status"], again.status_code) == ("ok", 204)
    await until(lambda: "cleanup" in gateway.journal(tag), "the tool's cleanup")
    assert gateway.journal(tag) == ["start", "done", "finally", "cleanup"]


async def test_a_grace_that_is_over_runs_the_tools_finally(gateway: Served, tag: str) -> None:
    async with gateway.http() as client, client.stream("GET", f"/v1/tools/endless/stream?tag={tag}&_on_disconnect=grace:200ms") as response:
        await anext(events_of(response))
    await until(lambda: "cleanup" in gateway.journal(tag), "the tool's cleanup")
    assert gateway.journal(tag) == ["start", "finally", "cleanup"]


async def test_a_background_run_is_read_by_many_and_ran_once(gateway: Served, tag: str) -> None:
    async with gateway.http() as client:
        key = {"Idempotency-Key": tag}
        answers = await asyncio.gather(
            *(client.post("/v1/tools/numbered/runs", json={"tag": tag, "count": 5000}, headers=key) for _ in range(10))
        )
        assert {answer.status_code for answer in answers} == {202}
        (run,) = {answer.json()["run"] for answer in answers}
        texts = await asyncio.gather(*(client.get(f"/v1/runs/{run}/events") for _ in range(5)))
        result = (await client.get(f"/v1/runs/{run}/result", headers={"Prefer": "wait=10"})).json()
    # Status events may differ with the moment; chunks may not.
    chunks = {text.content.partition(b".1\n")[2] for text in texts}
    assert len(chunks) == 1
    assert [chunk["n"] for chunk in result["chunks"]] == list(range(1, 5001))
    assert gateway.journal(tag).count("start") == 1


async def test_a_tool_that_nobody_reads_waits_within_the_grace_and_loses_nothing(gateway: Served, tag: str) -> None:
    count = 200_000
    query = f"?tag={tag}&count={count}&_on_disconnect=grace:60s"
    seen: list[int] = []
    async with gateway.http() as client:
        async with client.stream("GET", NUMBERED + query) as response:
            events = await first_events(response, 1000)
            seen += [int(event.id.rpartition(".")[2]) for event in events if event.event == "message"]
            last = events[-1].id
        run = last.partition(".")[0]

        def stands_still() -> bool:
            chunks = gateway.client.get(f"/v1/runs/{run}").json()["chunks"]
            stood, before[0] = chunks == before[0], chunks
            return stood

        before = [0]
        await until(stands_still, "the tool to be made to wait")
        assert before[0] < count
        async with client.stream("GET", NUMBERED + query, headers={"Last-Event-ID": last}) as response:
            story = await read_sse(response)
    assert seen + story.numbers == list(range(1, count + 1))
    assert gateway.journal(tag).count("start") == 1


async def first_events(response: httpx.Response, count: int) -> list[ServerSentEvent]:
    """The first events of a response that is then left."""
    events = events_of(response)
    return [await anext(events) for _ in range(count)]
