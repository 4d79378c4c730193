"""base.Channel.open_duplex, over both transports: a real gRPC server, and a worker made of frames."""

from __future__ import annotations

import asyncio
import gc
import struct
from typing import Any

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from gateway.errors import Code
from gateway.transport import TransportKind, open_transport
from gateway.transport.base import (
    MESSAGE_LIMIT_BYTES,
    UNSENT_HIGH_BYTES,
    UNSENT_LIMIT_BYTES,
    WINDOW_BYTES,
    CallStatus,
    SendRefused,
)

OK = CallStatus(Code.OK)


def path(name: str) -> str:
    return f"/test.Service/{name}"


def numbered(count: int, size: int) -> list[bytes]:
    return [i.to_bytes(4, "big").ljust(size, b".") for i in range(count)]


def data_of(connection: Any, stream_id: int = 1) -> bytes:
    return b"".join(frame.data for frame in connection.of(DataFrame) if frame.stream_id == stream_id)


def has_ended(connection: Any, stream_id: int = 1) -> bool:
    return any("END_STREAM" in frame.flags for frame in connection.of(DataFrame) if frame.stream_id == stream_id)


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\x00" + len(message).to_bytes(4, "big") + message for message in messages)


# -- what is said, and heard ---------------------------------------------------------------------------------


async def test_all_four_kinds_of_methods(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    assert await channel.unary(path("echo"), b"one", timeout_s=10) == b"one"
    server_streaming, client_streaming, both = recorder(), recorder(), recorder()
    channel.open_stream(path("count"), struct.pack(">II", 3, 4), server_streaming)
    call = channel.open_duplex(path("total"), client_streaming)
    for message in (b"a", b"bc", b""):
        assert call.send(message)
    call.end_sending()
    call = channel.open_duplex(path("chat"), both)
    assert call.send(b"x")
    assert call.send(b"y")
    call.end_sending()
    assert [await sink.until_closed() for sink in (server_streaming, client_streaming, both)] == [OK] * 3
    assert server_streaming.messages == numbered(3, 4)
    assert client_streaming.messages == [struct.pack(">II", 3, 3)]
    assert both.messages == [b"x", b"y"]


async def test_ping_pong_where_each_message_waits_for_the_last_answer(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("chat"), sink)

    def go_on(batch: list[bytes]) -> None:
        last = int(batch[-1])
        if last < 200:
            call.send(b"%d" % (last + 1))
        else:
            call.end_sending()

    sink.on_batch = go_on
    call.send(b"0")
    assert await sink.until_closed() == OK
    assert sink.messages == [b"%d" % i for i in range(201)]


async def test_server_may_speak_before_the_first_message(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("greet"), sink)
    await sink.until_messages(1)
    call.send(b"you")
    call.end_sending()
    assert await sink.until_closed() == OK
    assert sink.messages == [b"hello", b"hello you"]


async def test_half_close_brings_the_answers(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()
    call = channel.open_duplex(path("collect"), sink)
    call.send(b"one")
    call.send(b"two")
    assert await channel.unary(path("echo"), b"ping", timeout_s=10) == b"ping"
    assert not sink.messages
    call.end_sending()
    call.end_sending()
    assert await sink.until_closed() == OK
    assert sink.messages == [b"one", b"two"]


async def test_half_close_with_no_message_at_all(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_duplex(path("total"), sink).end_sending()
    assert await sink.until_closed() == OK
    assert sink.messages == [struct.pack(">II", 0, 0)]


@pytest.mark.parametrize("size", [0, 1, 70_000, 8 << 20])
async def test_message_of_any_size_arrives(connect: Any, serve: Any, recorder: Any, size: int) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("chat"), sink)
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    call.send(message)
    call.end_sending()
    assert await sink.until_closed() == OK
    assert sink.messages == [message]


async def test_messages_of_one_step_arrive_complete_and_in_order(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("chat"), sink)
    messages = numbered(2_000, 20)
    assert all(call.send(message) for message in messages)
    call.end_sending()
    assert await sink.until_closed() == OK
    assert sink.messages == messages


async def test_metadata_and_deadline_reach_the_worker(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("chat"), sink, timeout_s=30, metadata=[("x-request", "r1"), ("blob-bin", "AQL+")])
    call.end_sending()
    assert await sink.until_closed() == OK
    (seen,) = server.service.seen
    assert (seen["metadata"]["x-request"], seen["metadata"]["blob-bin"]) == ("r1", b"\x01\x02\xfe")
    assert 20 < seen["remaining_s"] <= 30.1


async def test_calls_side_by_side_do_not_mix(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sinks = [recorder() for _ in range(30)]
    calls = [channel.open_duplex(path("chat"), sink) for sink in sinks]
    for number in range(50):
        for i, call in enumerate(calls):
            call.send(b"%d.%d" % (i, number))
    for call in calls:
        call.end_sending()
    for i, sink in enumerate(sinks):
        assert await sink.until_closed() == OK
        assert sink.messages == [b"%d.%d" % (i, number) for number in range(50)]


# -- a server that reads slowly ------------------------------------------------------------------------------


async def test_slow_server_makes_the_sender_wait_and_loses_nothing(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("slow"), sink)
    await server.service.until(lambda: server.service.active == 1)
    message, sent = b"x" * 10_000, 0
    told_to_wait, refused = False, ""
    # A sender that doesn't wait when it is told to is refused: the windows, and what both sides' buffers take, are finite.
    while not refused:
        try:
            told_to_wait |= not call.send(message)
            sent += 1
            await asyncio.sleep(0)
        except SendRefused as exc:
            refused = str(exc)
        assert sent * len(message) < 64 << 20
    assert told_to_wait
    assert str(UNSENT_LIMIT_BYTES) in refused
    # Nothing of what was accepted is lost.
    told = sink.sendable
    server.service.released.set()
    await sink.until(lambda: sink.sendable > told)
    assert call.send(message)
    call.end_sending()
    assert await sink.until_closed() == OK
    assert sink.messages == [struct.pack(">II", sent + 1, (sent + 1) * len(message))]


async def test_sender_that_waits_when_told_to_sends_it_all(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("chat"), sink)
    left = numbered(3_000, 1_000)[::-1]

    def go_on() -> None:
        while left:
            if not call.send(left.pop()):
                return
        call.end_sending()

    sink.when_sendable = go_on
    go_on()
    assert left, "there was no need to wait"
    assert await sink.until_closed() == OK
    assert sink.messages == numbered(3_000, 1_000)
    assert sink.sendable


async def test_paused_duplex_call_stops_the_worker(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()
    call = channel.open_duplex(path("chat"), sink)
    sink.on_batch = lambda _: call.pause_reading()
    message = b"x" * 16_384
    call.send(message)
    await sink.until_messages(1)
    for _ in range(60):
        call.send(message)
    for _ in range(50):
        assert await channel.unary(path("echo"), b"ping", timeout_s=10) == b"ping"
    assert sink.size_bytes <= WINDOW_BYTES + len(message)
    sink.on_batch = None
    call.resume_reading()
    call.end_sending()
    assert await sink.until_closed() == OK
    assert len(sink.messages) == 61


# -- what is refused -----------------------------------------------------------------------------------------


async def test_message_after_end_sending_is_refused(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()
    call = channel.open_duplex(path("silent"), sink)
    call.send(b"x")
    call.end_sending()
    with pytest.raises(SendRefused, match="end_sending"):
        call.send(b"too late")
    await sink.until_messages(1)
    with pytest.raises(SendRefused, match="end_sending"):
        call.send(b"too late")
    call.cancel()
    assert (await sink.until_closed()).code is Code.CANCELLED


async def test_message_over_the_limit_is_refused_and_the_call_goes_on(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("chat"), sink)
    with pytest.raises(SendRefused, match=str(MESSAGE_LIMIT_BYTES)):
        call.send(bytes(MESSAGE_LIMIT_BYTES + 1))
    call.send(b"small")
    call.end_sending()
    assert await sink.until_closed() == OK
    assert sink.messages == [b"small"]


async def test_metadata_that_is_not_valid_closes_internal(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("chat"), sink, metadata=[("Upper", "x")])
    call.send(b"x")
    call.end_sending()
    status = await sink.until_closed()
    assert (status.code, "metadata" in status.message) == (Code.INTERNAL, True)
    assert not server.service.seen


# -- ends ----------------------------------------------------------------------------------------------------


async def test_server_that_ends_well_before_the_half_close_is_heard_at_once(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()
    call = channel.open_duplex(path("enough"), sink)
    call.send(b"first")
    assert await sink.until_closed() == OK
    assert sink.messages == [b"first"]
    assert not call.send(b"nobody hears this")
    call.end_sending()
    call.cancel()
    assert await channel.unary(path("echo"), b"still there", timeout_s=10) == b"still there"
    assert channel.open_calls == 0


@pytest.mark.parametrize("method", ["enough", "refuse"])
async def test_server_that_ends_in_the_middle_of_a_flood_has_its_own_status_heard(
    connect: Any, serve: Any, recorder: Any, method: str
) -> None:
    server = await serve()
    channel = connect(server.address)
    for _ in range(30):
        sink = recorder()
        call = channel.open_duplex(path(method), sink)
        message = b"x" * 20_000

        def flood(call: Any = call, message: bytes = message) -> None:
            while call.send(message):
                pass

        sink.when_sendable = flood
        flood()
        status = await sink.until_closed()
        if method == "enough":
            assert (status, sink.messages) == (OK, [message])
        else:
            assert (status.code, status.message) == (Code.FAILED_PRECONDITION, "x" * 20)
    assert channel.open_calls == 0
    assert await channel.unary(path("echo"), b"still there", timeout_s=10) == b"still there"


async def test_cancel_stops_the_worker_and_drops_what_waits(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("slow"), sink)
    await server.service.until(lambda: server.service.active == 1)
    while call.send(b"x" * 10_000):
        pass
    call.cancel()
    assert not sink.statuses, "on_close was called from within cancel"
    call.cancel()
    assert (await sink.until_closed()).code is Code.CANCELLED
    await server.service.until(lambda: server.service.active == 0)
    assert not call.send(b"nobody hears this")
    call.end_sending()
    await asyncio.sleep(0)
    assert len(sink.statuses) == 1


async def test_cancel_right_after_open_closes_cancelled(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()
    call = channel.open_duplex(path("chat"), sink)
    call.send(b"x")
    call.cancel()
    assert (await sink.until_closed()).code is Code.CANCELLED
    assert await channel.unary(path("echo"), b"still there", timeout_s=10) == b"still there"
    await server.service.until(lambda: server.service.active == 0)


async def test_deadline_of_a_call_that_sends_in_vain_closes_it(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_duplex(path("slow"), sink, timeout_s=0.3)
    while call.send(b"x" * 10_000):
        pass
    assert (await sink.until_closed()).code is Code.DEADLINE_EXCEEDED
    assert not call.send(b"nobody hears this")
    await server.service.until(lambda: server.service.active == 0)


async def test_sink_that_raises_when_sendable_loses_only_its_call(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()

    def raises() -> None:
        raise RuntimeError("a bug in the sink")

    sink.when_sendable = raises
    call = channel.open_duplex(path("chat"), sink)
    for message in numbered(20, UNSENT_HIGH_BYTES // 10):
        call.send(message)
    assert (await sink.until_closed()).code in (Code.INTERNAL, Code.CANCELLED)
    await server.service.until(lambda: server.service.active == 0)
    assert await channel.unary(path("echo"), b"still there", timeout_s=10) == b"still there"


async def test_closed_channel_ends_its_calls_and_refuses_others(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    open_call, late_call = recorder(), recorder()
    call = channel.open_duplex(path("chat"), open_call)
    call.send(b"x")
    await open_call.until_messages(1)
    await channel.aclose()
    assert (await open_call.until_closed()).code is Code.UNAVAILABLE
    assert not call.send(b"y")
    late = channel.open_duplex(path("chat"), late_call)
    late.send(b"z")
    assert not late_call.statuses, "on_close was called from within open_duplex"
    assert (await late_call.until_closed()).code is Code.UNAVAILABLE
    await server.service.until(lambda: server.service.active == 0)


async def test_call_after_the_task_group_has_ended_is_refused(kind: TransportKind, serve: Any, recorder: Any) -> None:
    server = await serve()
    async with asyncio.TaskGroup() as tasks:
        channel = open_transport(kind, tasks).connect(server.address)
    sink = recorder()
    channel.open_duplex(path("chat"), sink)
    status = await sink.until_closed()
    assert (status.code, "shutting down" in status.message) == (Code.UNAVAILABLE, True)
    await channel.aclose()


async def test_cancel_storm_leaves_nothing_behind(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    for round_ in range(6):
        sinks = [recorder() for _ in range(50)]
        calls = [channel.open_duplex(path("chat"), sink, timeout_s=300) for sink in sinks]
        for call in calls:
            call.send(b"x" * 1_000)
        if round_ % 2:  # half the rounds are cancelled before the worker has said anything
            await sinks[-1].until_messages(1)
        for call in calls:
            call.cancel()
        for sink in sinks:
            assert (await sink.until_closed()).code is Code.CANCELLED
    assert channel.open_calls == 0
    await server.service.until(lambda: server.service.active == 0)
    assert await channel.unary(path("echo"), b"still there", timeout_s=10) == b"still there"
    del calls, call, sinks, sink
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing).__name__ in ("LaneDuplexCall", "GrpcioDuplexCall")]


# -- connections, frame by frame -----------------------------------------------------------------------------


async def test_messages_sent_before_there_is_a_connection_arrive(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake(greet=False)
    sink = recorder()
    call = connect(worker.address).open_duplex(path("x"), sink)
    call.send(b"early")
    connection = await worker.connection()
    call.send(b"bird")
    connection.greet()
    await connection.until(lambda: data_of(connection) == framed(b"early", b"bird"))
    assert not has_ended(connection)
    call.end_sending()
    await connection.until(lambda: has_ended(connection))
    connection.answer(1, b"done")
    assert await sink.until_closed() == OK


async def test_sender_stays_within_a_small_window_and_goes_on_with_each_update(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake({SettingsFrame.INITIAL_WINDOW_SIZE: 100})
    sink = recorder()
    call = connect(worker.address).open_duplex(path("x"), sink)
    message = bytes(i % 251 for i in range(UNSENT_HIGH_BYTES + 1_000))
    assert not call.send(message)
    connection = await worker.connection()
    await connection.until(lambda: len(data_of(connection)) == 100)
    connection.send(WindowUpdateFrame(1, 50))
    await connection.until(lambda: len(data_of(connection)) == 150)
    assert not sink.sendable
    call.end_sending()
    connection.send(WindowUpdateFrame(1, len(message)))
    # The connection's own window, which is yet to be widened.
    await connection.until(lambda: len(data_of(connection)) == 65_535)
    assert not has_ended(connection)
    connection.send(WindowUpdateFrame(0, 1 << 20))
    await connection.until(lambda: has_ended(connection))
    assert data_of(connection) == framed(message)
    connection.answer(1, b"done")
    assert await sink.until_closed() == OK


async def test_answer_and_reset_without_error_before_the_half_close_end_the_call(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake({SettingsFrame.INITIAL_WINDOW_SIZE: 100})
    sink = recorder()
    call = connect(worker.address).open_duplex(path("x"), sink)
    call.send(bytes(5_000))
    connection = await worker.connection()
    await connection.until(lambda: len(data_of(connection)) == 100)
    connection.answer(1, b"enough")
    connection.send(RstStreamFrame(1, error_code=0))
    assert await sink.until_closed() == OK
    assert sink.messages == [b"enough"]
    assert len(data_of(connection)) == 100


async def test_connection_cut_while_sending_closes_the_call_lost(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake({SettingsFrame.INITIAL_WINDOW_SIZE: 100})
    sink = recorder()
    call = connect(worker.address).open_duplex(path("x"), sink)
    call.send(bytes(5_000))
    connection = await worker.connection()
    await connection.until(lambda: len(data_of(connection)) == 100)
    connection.writer.transport.abort()
    status = await sink.until_closed()
    assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
    assert not call.send(b"nobody hears this")


async def test_goaway_lets_a_call_go_on_sending(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    sink = recorder()
    call = connect(worker.address).open_duplex(path("x"), sink)
    call.send(b"one")
    connection = await worker.connection()
    await connection.until(lambda: data_of(connection) == framed(b"one"))
    connection.send(connection.headers(1), DataFrame(1, framed(b"ack")), GoAwayFrame(0, last_stream_id=1))
    await sink.until_messages(1)
    call.send(b"two")
    call.end_sending()
    await connection.until(lambda: has_ended(connection))
    assert data_of(connection) == framed(b"one", b"two")
    connection.send(connection.trailers(1))
    assert await sink.until_closed() == OK


async def test_goaway_that_has_not_seen_the_call_closes_it_unavailable(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake({SettingsFrame.INITIAL_WINDOW_SIZE: 10})
    sink = recorder()
    call = connect(worker.address).open_duplex(path("x"), sink)
    call.send(bytes(100))
    connection = await worker.connection()
    await connection.first(HeadersFrame)
    connection.send(GoAwayFrame(0, last_stream_id=0))
    assert (await sink.until_closed()).code is Code.UNAVAILABLE


async def test_call_cancelled_while_dialling_is_never_sent(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake(greet=False)
    channel = connect(worker.address)
    gone, kept = recorder(), recorder()
    call = channel.open_duplex(path("gone"), gone)
    call.send(b"gone")
    other = channel.open_duplex(path("kept"), kept)
    other.send(b"kept")
    connection = await worker.connection()
    call.cancel()
    assert (await gone.until_closed()).code is Code.CANCELLED
    connection.greet()
    await connection.until(lambda: bool(data_of(connection)))
    assert b"gone" not in b"".join(frame.data for frame in connection.of(DataFrame))
    connection.answer(1)
    assert await kept.until_closed() == OK
