"""The subprotocol under any sequence of frames, of a worker's doings, and of a socket that takes nothing for a while.

No network: a socket in memory, which the test plays together with the worker. A model of what the client may expect
is kept beside it; see Client for the promises that are checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import WebSocket
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec import websocket as codec
from gateway.codec.websocket import CREDIT_LIMIT, BadFrame
from gateway.endpoints.connection import LINK_EXTENSION
from gateway.endpoints.duplex import SocketSettings
from gateway.endpoints.requests import CallReader, RequestLimits
from gateway.endpoints.subprotocol import Socket
from gateway.sessions import Sessions
from tests.codec.test_sse import JSON_VALUES
from tests.conftest import FakePool
from tests.runs.test_hub import hub_of

RUNS_LIMIT = 3
TURNS = 25
BAD_FRAME_CODES = {4400, 4401, 4409, 4413, 4429}
FORGOTTEN = "r_01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def turns() -> None:
    """Let the loop turn until all that a step has set off has happened: nothing here waits for the world."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Wire:
    """A WebSocket in memory. `blocked`: it takes nothing; `links`: it takes what is written past ASGI."""

    def __init__(self, *, links: bool) -> None:
        self.links = links
        self.heard: list[dict[str, Any]] = []
        self.close_codes: list[int] = []
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.is_gone = False
        self.writes = 0
        extensions = {LINK_EXTENSION: self} if links else {}
        scope = {"type": "websocket", "headers": [], "extensions": extensions, "subprotocols": [codec.SUBPROTOCOL]}
        self.websocket = WebSocket(scope, self.incoming.get, self._send)

    def client_says(self, text: str | bytes) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text" if isinstance(text, str) else "bytes": text})

    def client_leaves(self) -> None:
        self.is_gone = True
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.flowing.set()

    def write_messages(self, messages: Sequence[bytes]) -> bool:
        self.writes += 1
        # Every third write finds the socket full for a moment.
        if not self.flowing.is_set() or self.is_gone or self.close_codes or self.writes % 3 == 0:
            return False
        self.heard += map(orjson.loads, messages)
        return True

    def abort(self) -> None:
        raise AssertionError("nothing here takes as long as that")

    async def _send(self, message: Any) -> None:
        await self.flowing.wait()
        if self.is_gone:
            raise OSError("as ASGI says it")
        if message["type"] == "websocket.send":
            assert not self.close_codes, "a frame after the close frame"
            self.heard.append(orjson.loads(message["text"]))
        elif message["type"] == "websocket.close":
            self.close_codes.append(message["code"])


class Reading:
    """What the client knows of one of its runs: what it may get, and what it got."""

    def __init__(self, credit: int | None, begins_at: int | None) -> None:
        self.credit = credit
        self.run = ""
        # The number of the next chunk; None: any, as the reader begins live.
        self.next = begins_at
        self.chunks = 0
        self.is_over = False
        # After the client left it, what was being sent still comes, and no more.
        self.is_left = False


class Client:
    """The client's side of the socket, which knows what it may expect.

    Checked: frames come after the ack and for ids that were asked for; chunks come in order, without a hole, as the worker
    sent them, never more than there is credit for, and no fewer; nothing follows a terminal frame; only a broken protocol or
    a drain closes the socket, with a code of the table.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.readings: dict[str, Reading] = {}
        # Ids that the server has to think live, and those that it has to answer with a terminal frame at once.
        self.live: set[str] = set()
        self.doomed: set[str] = set()
        self.pings = 0
        self.initialised = False
        self.drains = False
        # The client broke the protocol; or did so only if the server has not yet sent what is due.
        self.has_broken = False
        self.may_have_broken = False
        self._read = 0

    @property
    def closed(self) -> bool:
        return bool(self.wire.close_codes)

    def say(self, text: str | bytes) -> None:
        if self.closed:
            return
        self.wire.client_says(text)
        try:
            if isinstance(text, bytes):
                raise BadFrame("text only")
            self._foresee(codec.read_frame(text))
        except BadFrame:
            self.has_broken = True

    def _foresee(self, frame: codec.ClientFrame) -> None:
        """Note what the server will make of a frame."""
        if self.has_broken:
            return
        if (frame.type == "connection_init") is self.initialised:
            raise BadFrame("too early, or twice")
        if frame.type == "connection_init":
            self.initialised = True
        elif frame.type == "ping":
            self.pings += 1
        elif frame.type in ("subscribe", "attach"):
            if frame.id in self.live or len(self.live) >= RUNS_LIMIT:
                raise BadFrame("in use, or too many")
            self._begin(frame)
        elif frame.id in self.live:
            reading = self.readings[frame.id]
            if frame.type == "complete":
                self.live.discard(frame.id)
                reading.is_left = True
            elif frame.type == "credit" and reading.credit is not None:
                reading.credit += frame.n
                if reading.credit - reading.chunks > CREDIT_LIMIT:
                    if self.wire.flowing.is_set():
                        raise BadFrame("too much")
                    # The server may have taken chunks that have not come yet: its sum is this one, or less.
                    self.may_have_broken = True

    def _begin(self, frame: codec.ClientFrame) -> None:
        payload = frame.payload
        if frame.type == "subscribe":
            is_good = payload["tool"] == "count"
        else:
            is_good = payload["run"] != FORGOTTEN and "last_event_id" not in payload
        if not is_good or self.drains:
            self.doomed.add(frame.id)
            return
        begins_at = None if payload.get("from") == "live" else payload.get("from", 0) + 1
        self.readings[frame.id] = Reading(payload.get("credit"), begins_at)
        self.live.add(frame.id)

    def hear(self) -> None:
        """Check what has come since the last time."""
        frames, self._read = self.wire.heard[self._read :], len(self.wire.heard)
        for frame in frames:
            self._hear(frame)

    def _hear(self, frame: dict[str, Any]) -> None:
        kind, name = frame["type"], frame.get("id")
        if kind == "connection_ack":
            assert frame is self.wire.heard[0]
        elif kind == "pong":
            self.pings -= 1
            assert self.pings >= 0
        elif kind == "goaway":
            assert self.drains
        elif name in self.doomed:
            assert kind in ("error", "complete")
            self.doomed.discard(name)
        else:
            self._hear_run(kind, frame, self.readings[frame["id"]])

    def _hear_run(self, kind: str, frame: dict[str, Any], reading: Reading) -> None:
        assert not reading.is_over, frame
        reading.is_over = reading.is_left
        if kind == "next":
            number = int(frame["eid"].rpartition(".")[2])
            assert number == frame["payload"]
            assert reading.next in (None, number)
            reading.next = number + 1
            reading.chunks += 1
            assert reading.credit is None or reading.chunks <= reading.credit
        elif kind == "gap":
            assert reading.next in (None, frame["payload"]["from"])
            reading.next = frame["payload"]["to"] + 1
        elif kind in ("complete", "error"):
            reading.is_over = True
            self.live.discard(frame["id"])
        elif kind == "start":
            reading.run = frame["payload"]["run"]
            # A reader can't be ahead of its run.
            reading.next = frame["payload"].get("from", reading.next)
        else:
            assert kind == "status"

    def check(self, sent: dict[str, int]) -> None:
        """Check, once all that was due has been sent, that nothing is missing and that the socket is as open as it should be.

        `sent`: how many chunks each run has.
        """
        codes = self.wire.close_codes
        assert len(codes) <= 1
        if self.has_broken or (self.may_have_broken and codes):
            assert set(codes) <= BAD_FRAME_CODES | ({1012} if self.drains else set())
            assert codes
        elif self.drains and not self.live:
            assert codes == [1012]
        else:
            assert codes == []
            assert not self.doomed
            assert not self.pings
            for reading in map(self.readings.__getitem__, self.live):
                assert reading.run
                assert reading.chunks == reading.credit or reading.next == sent.get(reading.run, 0) + 1


class Scene:
    """A socket that is served, its client, and the workers behind it. Each step is a method; `play` does one."""

    def __init__(self, *, links: bool) -> None:
        self.pool = FakePool()
        self.hub = hub_of(self.pool)
        reader = CallReader(self.hub, Sessions(ttl_s=60, limit=10, on_end=lambda _: None), RequestLimits())
        self.wire = Wire(links=links)
        self.client = Client(self.wire)
        self.socket = Socket(self.wire.websocket, reader, SocketSettings(runs_limit=RUNS_LIMIT))
        self.sent: dict[str, int] = {}
        self._fresh = 0

    async def play(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])
        await turns()
        self.client.hear()
        if self.wire.flowing.is_set():
            self.client.check(self.sent)

    # the client

    def raw(self, text: str | bytes) -> None:
        self.client.say(text)

    def frame(self, kind: str, **members: Any) -> None:
        self.client.say(orjson.dumps({"type": kind, **members}).decode())

    def subscribe(self, payload: dict[str, Any]) -> None:
        self.frame("subscribe", id=self._fresh_name(), payload=payload)

    def attach(self, index: int, payload: dict[str, Any]) -> None:
        run = self.pool.calls[index % len(self.pool.calls)].run_id if self.pool.calls else FORGOTTEN
        self.frame("attach", id=self._fresh_name(), payload={"run": run, **payload})

    def again(self, kind: str, index: int, n: int) -> None:
        """A frame about a run that is known, live or not."""
        name = self._name(index % max(self._fresh, 1))
        if kind != "subscribe":
            self.frame(kind, id=name, n=n)
        elif name in self.client.live:
            self.frame(kind, id=name, payload={"tool": "count"})

    # the workers

    def send(self, index: int, count: int) -> None:
        if self.pool.calls:
            call = self.pool.calls[index % len(self.pool.calls)]
            if self.hub.find_anybodys(call.run_id).ended is None:  # type: ignore[union-attr]
                first = self.sent.get(call.run_id, 0) + 1
                self.sent[call.run_id] = first + count - 1
                call.send(*range(first, first + count))

    def finish(self, index: int, fails: bool) -> None:
        if self.pool.calls:
            call = self.pool.calls[index % len(self.pool.calls)]
            call.fail() if fails else call.end()

    # the machine

    def block(self) -> None:
        self.wire.flowing.clear()

    def unblock(self) -> None:
        self.wire.flowing.set()

    def drain(self) -> None:
        self.client.drains = True
        self.socket.go_away(1000)

    def _fresh_name(self) -> str:
        self._fresh += 1
        return self._name(self._fresh - 1)

    def _name(self, index: int) -> str:
        return f"run-{index}"


CREDITS = st.none() | st.integers(1, 5)
INDEXES = st.integers(0, 5)
SUBSCRIBES = st.fixed_dictionaries({"tool": st.sampled_from(["count", "count", "count", "nobody"])}, optional={"credit": CREDITS})
ATTACHES = st.fixed_dictionaries({}, optional={"credit": CREDITS, "from": st.just("live") | st.integers(0, 9)}) | st.just(
    {"last_event_id": f"{FORGOTTEN}.end"}
)
# The members of a frame with something else in their place; a good payload is SUBSCRIBES' and ATTACHES' affair.
NO_OBJECTS = JSON_VALUES.filter(lambda value: not isinstance(value, dict))
MANGLED = st.fixed_dictionaries(
    {"type": st.sampled_from([*codec.CLIENT_FRAMES, "dance"])}, optional={"id": JSON_VALUES, "payload": NO_OBJECTS}
)
GARBAGE = st.text(max_size=10) | st.binary(max_size=5) | MANGLED.map(lambda document: orjson.dumps(document).decode())
STEPS = st.one_of(
    st.tuples(st.just("subscribe"), SUBSCRIBES),
    st.tuples(st.just("attach"), INDEXES, ATTACHES),
    st.tuples(st.just("again"), st.just("credit"), INDEXES, st.sampled_from([1, 2, 3, 10, CREDIT_LIMIT - 1, CREDIT_LIMIT])),
    st.tuples(st.just("again"), st.sampled_from(["complete", "cancel"]), INDEXES, st.just(1)),
    st.tuples(st.just("frame"), st.sampled_from(["ping", "pong"])),
    st.tuples(st.just("send"), INDEXES, st.integers(1, 20)),
    st.tuples(st.just("send"), INDEXES, st.integers(1, 20)),
    st.tuples(st.just("finish"), INDEXES, st.booleans()),
    st.tuples(st.sampled_from(["block", "unblock", "unblock"])),
    st.just(("drain",)),
)
BREAKS = st.one_of(
    st.tuples(st.just("raw"), GARBAGE),
    st.tuples(st.just("again"), st.sampled_from(["subscribe", "credit"]), INDEXES, st.sampled_from([1, 0, CREDIT_LIMIT, CREDIT_LIMIT + 1])),
    st.tuples(st.just("frame"), st.just("connection_init")),
)


@settings(max_examples=300)
@given(st.booleans(), st.booleans(), st.lists(STEPS, max_size=25), st.lists(BREAKS | STEPS, max_size=5), st.booleans())
def test_whatever_happens_the_protocol_is_kept(
    links: bool, initialises: bool, steps: list[tuple[Any, ...]], last_steps: list[tuple[Any, ...]], vanishes: bool
) -> None:
    async def play() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        scene = Scene(links=links)
        serving = asyncio.ensure_future(scene.socket.serve())
        await turns()
        for step in [("frame", "connection_init")] * initialises + steps + last_steps:
            await scene.play(step)
        if not vanishes:
            await scene.play(("unblock",))
        scene.wire.client_leaves()
        await turns()
        assert serving.done()
        await serving
        assert scene.hub.open_runs == 0
        assert all(call.cancelled.is_set() or call._over for call in scene.pool.calls)
        assert faults == []

    asyncio.run(play())
