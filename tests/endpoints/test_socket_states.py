"""The subprotocol as a state machine: any sequence of frames, good and bad, against a model of what must come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.codec.websocket import SUBPROTOCOL
from tests.conftest import FakeCall, FakePool, Running, Serve, until, within

NAMES = st.sampled_from(["a", "b", "c", "d"])
RUNS_LIMIT = 3
GARBAGE = [
    "",
    "{",
    "[]",
    "null",
    '{"type":"nothing"}',
    '{"type":"subscribe"}',
    '{"type":"credit","id":"a","n":0}',
    '{"type":"cancel","id":""}',
]


class Model:
    """One run as the client knows it: how many chunks were sent to it, how many it has room for (None: any), how many it has."""

    def __init__(self, call: FakeCall, credit: int | None) -> None:
        self.call = call
        self.credit = credit
        self.sent = 0
        self.heard = 0

    @property
    def due(self) -> int:
        """How many chunks have to come now."""
        return self.sent - self.heard if self.credit is None else min(self.sent - self.heard, self.credit)


class Sockets(RuleBasedStateMachine):
    """One socket after the other, on one gateway whose worker the machine plays. `serve` and `runner` are set by the test."""

    serve: Serve
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, Model] = {}
        self.acknowledged = False
        self.stack = AsyncExitStack()
        self.ready: asyncio.Future[Running] | None = None

    def run(self, step: Any) -> Any:
        return self.runner.run(step)

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())

    async def _begin(self) -> None:
        self.over = asyncio.Event()
        self.ready = asyncio.get_running_loop().create_future()
        # A task of its own: the server's task group is left by who entered it, and each step here is another task.
        self.serving = asyncio.create_task(self._serve())
        self.gateway = await within(self.ready)
        self.socket = await self._connect()

    async def _serve(self) -> None:
        async with self.serve(socket_runs_limit=RUNS_LIMIT) as running:
            assert self.ready is not None
            self.ready.set_result(running)
            await self.over.wait()

    async def _connect(self) -> ClientConnection:
        return await connect(f"{self.gateway.ws_url}/v1/ws", subprotocols=[SUBPROTOCOL], compression=None, proxy=None)

    @property
    def pool(self) -> FakePool:
        return self.gateway.pool

    # what the client does

    @rule()
    def init(self) -> None:
        if self.acknowledged:
            self.run(self._closes({"type": "connection_init"}, 4429))
        else:
            self.acknowledged = True
            self.run(self._init())

    async def _init(self) -> None:
        await self._say({"type": "connection_init"})
        assert (await self._hear())["type"] == "connection_ack"

    @rule()
    def ping(self) -> None:
        if not self.acknowledged:
            self.run(self._closes({"type": "ping"}, 4401))
        else:
            self.run(self._ping())

    async def _ping(self) -> None:
        """All that came before has been dealt with: the pong is behind it, and nothing else is."""
        await self._say({"type": "ping"})
        assert (await self._hear())["type"] == "pong"

    @precondition(lambda self: self.acknowledged)
    @rule(name=NAMES, credit=st.none() | st.integers(1, 5))
    def subscribe(self, name: str, credit: int | None) -> None:
        frame = {"type": "subscribe", "id": name, "payload": {"tool": "count", **({} if credit is None else {"credit": credit})}}
        if name in self.live:
            self.run(self._closes(frame, 4409))
        elif len(self.live) >= RUNS_LIMIT:
            self.run(self._closes(frame, 4413))
        else:
            self.run(self._subscribe(frame, name, credit))

    async def _subscribe(self, frame: dict[str, Any], name: str, credit: int | None) -> None:
        await self._say(frame)
        self.live[name] = Model(await self.pool.next_call(), credit)
        heard = await self._hear()
        assert (heard["type"], heard["id"]) == ("start", name)

    @precondition(lambda self: self.acknowledged)
    @rule(name=NAMES, problem=st.sampled_from([("nothing", "tool-not-found"), ("add", "tool-not-streaming")]))
    def subscribe_in_vain(self, name: str, problem: tuple[str, str]) -> None:
        if name not in self.live and len(self.live) < RUNS_LIMIT:
            self.run(self._in_vain({"type": "subscribe", "id": name, "payload": {"tool": problem[0]}}, problem[1]))

    @precondition(lambda self: self.acknowledged)
    @rule(name=NAMES)
    def attach_in_vain(self, name: str) -> None:
        if name not in self.live and len(self.live) < RUNS_LIMIT:
            payload = {"run": "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"}
            self.run(self._in_vain({"type": "attach", "id": name, "payload": payload}, "run-not-found"))

    async def _in_vain(self, frame: dict[str, Any], problem: str) -> None:
        await self._say(frame)
        heard = await self._hear()
        assert (heard["type"], heard["id"], heard["payload"]["type"]) == ("error", frame["id"], f"/problems/{problem}")

    @precondition(lambda self: self.live)
    @rule(name=NAMES, more=st.integers(1, 5))
    def grant(self, name: str, more: int) -> None:
        model = self.live.get(name)
        self.run(self._say({"type": "credit", "id": name, "n": more}))
        if model is not None and model.credit is not None:
            model.credit += more
            self.run(self._take(name, model))

    @precondition(lambda self: self.live)
    @rule(name=NAMES, way=st.sampled_from(["complete", "cancel"]))
    def stop(self, name: str, way: str) -> None:
        self.run(self._stop(name, way))

    async def _stop(self, name: str, way: str) -> None:
        await self._say({"type": way, "id": name})
        model = self.live.pop(name, None)
        if model is None:
            return
        await within(model.call.cancelled.wait())
        # What has no credit any more still comes before the end, or never, for who has left.
        if way == "cancel":
            heard = await self._hear_end(name, model)
            assert (heard["type"], heard["payload"]["status"]) == ("complete", "cancelled")

    @precondition(lambda self: self.acknowledged)
    @rule(text=st.sampled_from(GARBAGE) | st.binary(max_size=20))
    def garbage(self, text: str | bytes) -> None:
        self.run(self._closes(text, 4400))

    @rule()
    def leave(self) -> None:
        self.run(self._leave())

    async def _leave(self) -> None:
        self.socket.transport.abort()
        await within(self.socket.wait_closed())
        await self._afresh()

    # what the worker does

    @precondition(lambda self: self.live)
    @rule(name=NAMES, chunks=st.integers(1, 4))
    def work(self, name: str, chunks: int) -> None:
        if (model := self.live.get(name)) is not None:
            self.run(self._work(name, model, chunks))

    async def _work(self, name: str, model: Model, chunks: int) -> None:
        model.call.send(*range(model.sent + 1, model.sent + chunks + 1))
        model.sent += chunks
        await self._take(name, model)

    @precondition(lambda self: self.live)
    @rule(name=NAMES, well=st.booleans())
    def end(self, name: str, well: bool) -> None:
        model = self.live.get(name)
        if model is not None and model.due == model.sent - model.heard:
            del self.live[name]
            self.run(self._end(name, model, well))

    async def _end(self, name: str, model: Model, well: bool) -> None:
        model.call.end() if well else model.call.fail()
        heard = await self._hear_end(name, model)
        assert heard["type"] == ("complete" if well else "error")

    # what must hold

    @invariant()
    def runs_are_those_of_the_model(self) -> None:
        if self.ready is not None:
            self.run(until(lambda: self.gateway.open_runs() == len(self.live)))

    def teardown(self) -> None:
        if self.ready is not None:
            self.run(self._teardown())

    async def _teardown(self) -> None:
        self.socket.transport.abort()
        await within(self.socket.wait_closed())
        self.over.set()
        await within(self.serving)
        assert self.gateway.open_runs() == 0

    # how it is said and heard

    async def _say(self, frame: dict[str, Any] | str | bytes) -> None:
        await self.socket.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def _hear(self) -> dict[str, Any]:
        return dict(json.loads(await within(self.socket.recv())))

    async def _take(self, name: str, model: Model) -> None:
        """Hear exactly the chunks that are due, in order."""
        for _ in range(model.due):
            heard = await self._hear()
            model.heard += 1
            assert (heard["type"], heard["id"], heard["payload"]) == ("next", name, model.heard)
            assert heard["eid"].endswith(f".{model.heard}")
            if model.credit is not None:
                model.credit -= 1

    async def _hear_end(self, name: str, model: Model) -> dict[str, Any]:
        heard = await self._hear()
        assert heard["id"] == name
        assert heard["type"] in ("complete", "error")
        return heard

    async def _closes(self, frame: dict[str, Any] | str | bytes, code: int) -> None:
        await self._say(frame)
        with pytest.raises(ConnectionClosed):
            await within(self.socket.recv())
        assert self.socket.close_code == code
        await self._afresh()

    async def _afresh(self) -> None:
        """All runs of the socket have lost their reader, and a new socket knows of nothing."""
        for model in self.live.values():
            await within(model.call.cancelled.wait())
        self.live.clear()
        self.acknowledged = False
        self.socket = await self._connect()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.timeout(120)
def test_any_conversation_gets_what_the_model_says(serve: Serve, runner: asyncio.Runner) -> None:
    Sockets.serve = staticmethod(serve)
    Sockets.runner = runner
    run_state_machine_as_test(
        Sockets, settings=settings(max_examples=15, stateful_step_count=25, deadline=None, derandomize=True, database=None)
    )
