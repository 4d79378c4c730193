"""A request in many messages on the wire, without a socket (connection.py, upload.py, outgoing.py), and the link's writes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import hpack
import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Code
from gateway.transport.base import UNSENT_HIGH_BYTES, UNSENT_LIMIT_BYTES, UNSENT_LOW_BYTES, SendRefused
from gateway.transport.connection import ClientConnection
from gateway.transport.frames import PREFACE, ErrorCode
from gateway.transport.outgoing import Outgoing
from gateway.transport.stream import Stream

WINDOW = 65_535


@pytest.fixture
def kind() -> str:
    return "lane"


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\x00" + len(message).to_bytes(4, "big") + message for message in messages)


class Sender:
    """A connection, greeted, and the frames that it sent."""

    def __init__(self, settings: dict[int, int] | None = None) -> None:
        self.connection = ClientConnection[Stream]("http", "worker:1")
        assert self.connection.take_output().startswith(PREFACE)
        self.frames: list[Frame] = []
        self.news: list[Stream] = []
        self.read(SettingsFrame(0, settings or {}))
        self.frames.clear()

    def open(self, *messages: bytes) -> Stream:
        stream = Stream()
        stream.outgoing = Outgoing(1 << 20)
        for message in messages:
            stream.outgoing.add(message)
        self.connection.open(stream, "/s/m", b"", None, ())
        self._collect()
        return stream

    def send(self, stream: Stream, *messages: bytes, end: bool = False) -> None:
        assert stream.outgoing is not None
        for message in messages:
            stream.outgoing.add(message)
        stream.outgoing.ended |= end
        self.connection.push(stream)
        self._collect()

    def read(self, *frames: Frame) -> None:
        self.news = self.connection.receive(b"".join(frame.serialize() for frame in frames))
        for stream in self.news:
            stream.messages = None
        self._collect()

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if type(frame) is kind]

    def data(self, stream_id: int = 1) -> bytes:
        return b"".join(frame.data for frame in self.of(DataFrame) if frame.stream_id == stream_id)

    def ends(self, stream_id: int = 1) -> list[bool]:
        """Which of the stream's DATA frames carry END_STREAM."""
        return ["END_STREAM" in frame.flags for frame in self.of(DataFrame) if frame.stream_id == stream_id]

    def _collect(self) -> None:
        output = memoryview(self.connection.take_output())
        while output:
            frame, length = Frame.parse_frame_header(output[:9])
            frame.parse_body(output[9 : 9 + length])
            self.frames.append(frame)
            output = output[9 + length :]


def answer(*fields: tuple[str, str]) -> HeadersFrame:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([(":status", "200"), ("content-type", "application/grpc"), *(fields or [("grpc-status", "0")])], huffman=False)
    return HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"])


# -- frames --------------------------------------------------------------------------------------------------


def test_headers_leave_at_once_and_messages_of_one_push_share_a_frame() -> None:
    sender = Sender()
    stream = sender.open()
    assert [type(frame) for frame in sender.frames] == [HeadersFrame]
    sender.send(stream, *(b"%d" % i for i in range(500)))
    assert len(sender.of(DataFrame)) == 1
    assert sender.data() == framed(*(b"%d" % i for i in range(500)))
    assert sender.ends() == [False]


def test_last_messages_and_half_close_share_a_frame_and_a_late_one_is_an_empty_frame() -> None:
    together, late = Sender(), Sender()
    together.send(together.open(), b"a", b"b", end=True)
    assert together.ends() == [True]
    stream = late.open(b"a")
    late.send(stream, end=True)
    assert late.ends() == [False, True]
    assert late.data() == framed(b"a")


def test_half_close_needs_no_window() -> None:
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    sender.send(sender.open(), end=True)
    assert sender.ends() == [True]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 40_000)),
            st.tuples(st.just("stream"), st.integers(1, 60_000)),
            st.tuples(st.just("connection"), st.integers(1, 60_000)),
            st.tuples(st.just("cork"), st.just(0)),
            st.tuples(st.just("uncork"), st.just(0)),
        ),
        max_size=25,
    ),
    st.integers(0, 70_000),
)
def test_any_order_of_sends_and_updates_stays_within_the_windows_and_arrives_whole(steps: list[tuple[str, int]], initial: int) -> None:
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: initial})
    stream = sender.open()
    outgoing = stream.outgoing
    assert outgoing is not None
    windows = {"stream": initial, "connection": WINDOW}
    accepted: list[bytes] = []
    corked = False
    for step, size in steps:
        if step == "send":
            message = bytes([len(accepted) % 251]) * size
            try:
                has_room = outgoing.add(message)
            except SendRefused:
                assert outgoing.size_bytes >= UNSENT_LIMIT_BYTES
                continue
            accepted.append(message)
            assert has_room is not outgoing.is_full
            sender.send(stream)
        elif step in windows:
            windows[step] += size
            sender.read(WindowUpdateFrame(1 if step == "stream" else 0, size))
        else:
            corked = step == "cork"
            sender.connection.cork() if corked else sender.connection.uncork()
            sender._collect()
        whole = len(framed(*accepted))
        assert len(sender.data()) <= min(*windows.values(), whole)
        if not corked:
            assert len(sender.data()) == min(*windows.values(), whole)
        assert outgoing.size_bytes == whole - len(sender.data())
    sender.connection.uncork()
    sender.send(stream, end=True)
    sender.read(WindowUpdateFrame(0, 4 << 20), WindowUpdateFrame(1, 4 << 20))
    assert sender.data() == framed(*accepted)
    assert sender.ends() == [False] * (len(sender.ends()) - 1) + [True]
    assert all(len(frame.data) <= 16_384 for frame in sender.of(DataFrame))


def test_two_that_go_on_and_on_take_turns_at_the_connections_window() -> None:
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 30})
    first, second = sender.open(bytes(200_000)), sender.open(bytes(200_000))
    assert (len(sender.data(1)), len(sender.data(3))) == (WINDOW, 0)
    for _ in range(6):
        sender.read(WindowUpdateFrame(0, 10_000))
    # The first one was served before, and is behind the other now; then each gets what comes in its turn.
    assert (len(sender.data(1)) - WINDOW, len(sender.data(3))) == (30_000, 30_000)
    assert first.outgoing is not None
    assert second.outgoing is not None


def test_request_of_one_message_is_not_starved_by_one_that_goes_on() -> None:
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 30})
    endless = sender.open(bytes(200_000))
    plain = Stream()
    sender.connection.open(plain, "/s/m", bytes(1_000), None, ())
    for _ in range(2):
        sender.send(endless, bytes(10_000))
        sender.read(WindowUpdateFrame(0, 5_000))
    assert sender.ends(3) == [True]


def test_room_is_told_once_when_little_is_left() -> None:
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    sender.read(WindowUpdateFrame(0, 1 << 20))
    stream = sender.open()
    outgoing = stream.outgoing
    assert outgoing is not None
    assert outgoing.add(bytes(UNSENT_HIGH_BYTES - 10))
    assert not outgoing.add(b"")
    size = outgoing.size_bytes
    sender.send(stream)
    sender.read(WindowUpdateFrame(1, size - UNSENT_LOW_BYTES - 1))
    assert (sender.news, outgoing.freed, outgoing.is_full) == ([], False, True)
    sender.read(WindowUpdateFrame(1, 1))
    assert (sender.news, outgoing.freed, outgoing.is_full) == ([stream], True, False)
    outgoing.freed = False
    sender.read(WindowUpdateFrame(1, 1 << 20))
    assert (sender.news, outgoing.size_bytes) == ([], 0)


def test_settings_move_the_window_of_a_stream_that_is_sending() -> None:
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: 100})
    stream = sender.open(bytes(500))
    sender.read(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}), WindowUpdateFrame(1, 100))
    assert len(sender.data()) == 100
    sender.read(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1_000}))
    assert sender.data() == framed(bytes(500))
    assert stream.state.name == "WAITING"


def test_settings_are_acknowledged_ahead_of_what_they_let_go() -> None:
    """A peer counts by its old window until it reads that we know the new one: grpcio resets a stream that is ahead of it."""
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: 100})
    sender.open(bytes(500))
    plain = Stream()
    sender.connection.open(plain, "/s/m", bytes(500), None, ())
    sender._collect()
    sender.frames.clear()
    sender.read(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1_000, SettingsFrame.MAX_FRAME_SIZE: 1 << 20}))
    assert [type(frame) for frame in sender.frames] == [SettingsFrame, DataFrame, DataFrame]


# -- ends ----------------------------------------------------------------------------------------------------


def test_answer_ahead_of_the_half_close_resets_the_stream_once_and_sends_nothing_more() -> None:
    sender = Sender()
    stream = sender.open(b"one")
    sender.read(answer())
    assert stream.status is not None
    assert stream.status.code is Code.OK
    assert [reset.error_code for reset in sender.of(RstStreamFrame)] == [ErrorCode.CANCEL]
    sender.send(stream, b"two", end=True)
    sender.read(RstStreamFrame(1, error_code=0), WindowUpdateFrame(1, 100))
    assert sender.data() == framed(b"one")
    assert len(sender.of(RstStreamFrame)) == 1


def test_answer_after_the_half_close_resets_nothing() -> None:
    sender = Sender()
    sender.send(sender.open(b"one"), end=True)
    sender.read(answer())
    assert not sender.of(RstStreamFrame)


@pytest.mark.parametrize("frame", [RstStreamFrame(1, error_code=0), GoAwayFrame(0, last_stream_id=0)])
def test_stream_that_the_peer_has_given_up_is_not_reset_in_return(frame: Frame) -> None:
    sender = Sender({SettingsFrame.INITIAL_WINDOW_SIZE: 1})
    stream = sender.open(b"one")
    sender.read(frame)
    assert stream.status is not None
    assert not sender.of(RstStreamFrame)
    assert stream.outgoing is not None
    assert (stream.outgoing.closed, stream.outgoing.size_bytes, stream.unsent) == (True, 0, None)


# -- the link ------------------------------------------------------------------------------------------------


async def test_what_is_sent_in_one_step_leaves_in_one_write(
    connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await fake()
    channel = connect(worker.address)
    call = channel.open_duplex("/s/m", recorder())
    connection = await worker.connection()
    await connection.first(HeadersFrame)
    writes: list[bytes] = []
    monkeypatch.setattr(channel._links[0], "_transport", type("Tap", (), {"write": writes.append, "is_closing": lambda self: False})())
    for i in range(100):
        call.send(b"%d" % i)
    other = channel.open_duplex("/s/m", recorder())
    other.send(b"other")
    call.end_sending()
    await asyncio.sleep(0)
    monkeypatch.undo()
    (write,) = writes
    assert framed(*(b"%d" % i for i in range(100))) in write
    assert framed(b"other") in write


async def test_what_a_sink_sends_in_a_read_leaves_in_the_reads_one_write(
    connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await fake()
    channel = connect(worker.address)
    sinks = [recorder() for _ in range(3)]
    calls = [channel.open_duplex("/s/m", sink) for sink in sinks]
    for call, sink in zip(calls, sinks, strict=True):
        sink.on_batch = lambda batch, call=call: call.send(b"heard " + batch[-1])
    connection = await worker.connection()
    await connection.until(lambda: len(connection.of(HeadersFrame)) == 3)
    writes: list[bytes] = []
    monkeypatch.setattr(channel._links[0], "_transport", type("Tap", (), {"write": writes.append, "is_closing": lambda self: False})())
    connection.send(*(frame for stream_id in (1, 3, 5) for frame in (connection.headers(stream_id), DataFrame(stream_id, framed(b"x")))))
    await sinks[2].until_messages(1)
    await asyncio.sleep(0)
    monkeypatch.undo()
    (write,) = writes
    assert write.count(framed(b"heard x")) == 3


async def test_peer_with_vast_windows_that_does_not_read_makes_the_sender_wait(connect: Any, recorder: Any) -> None:
    """Its windows would take everything; what stands still is the socket."""
    accepted = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        settings = SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1})
        writer.write(settings.serialize() + WindowUpdateFrame(0, 2**31 - 1 - WINDOW).serialize())
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        accepted.set_result((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 16)
    sink = recorder()
    call = connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}").open_duplex("/s/m", sink)
    message, sent = bytes(60_000), 0
    reader, writer = await accepted
    refused = False
    while not refused:
        try:
            call.send(message)
            sent += len(message) + 5
            await asyncio.sleep(0)
        except SendRefused:
            refused = True
        # What the system's socket buffers hold, and the limit here.
        assert sent < 64 << 20
    told = sink.sendable
    writer.transport.resume_reading()
    read = bytearray()
    while len(read) < sent:
        read += await asyncio.wait_for(reader.read(1 << 20), 10)
    await sink.until(lambda: sink.sendable > told)
    assert call.send(message)
    writer.transport.abort()
    await sink.until_closed()
    server.close()
    await server.wait_closed()


async def test_send_on_hearing_the_last_message_of_a_call_that_is_over_says_so(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    sink = recorder()
    call = connect(worker.address).open_duplex("/s/m", sink)
    said: list[bool] = []
    sink.on_batch = lambda _: said.append(call.send(b"one more"))
    connection = await worker.connection()
    await connection.first(HeadersFrame)
    connection.answer(1, b"the last")
    assert (await sink.until_closed()).code is Code.OK
    assert said == [False]
