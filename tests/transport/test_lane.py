"""What only the lane does: its own connections, queue, timers and one delivery for each read."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from typing import Any

import pytest
import uvloop
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from gateway.errors import Code
from gateway.transport import dialer, lane, link, open_transport
from gateway.transport.address import TcpAddress
from gateway.transport.base import CallStatus
from gateway.transport.lanecall import LaneCall
from gateway.transport.tls import TlsOptions

METHOD = "/test.Service/x"
MAX_STREAMS = SettingsFrame.MAX_CONCURRENT_STREAMS


@pytest.fixture
def kind() -> str:
    return "lane"


def message(data: bytes) -> bytes:
    return b"\x00" + len(data).to_bytes(4, "big") + data


# -- delivery ------------------------------------------------------------------------------------------------


async def test_messages_of_one_read_are_one_batch(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    sink = recorder()
    connect(worker.address).open_stream(METHOD, b"", sink)
    connection = await worker.connection()
    await connection.requests(1)
    connection.answer(1, *(b"%d" % i for i in range(300)))
    assert await sink.until_closed() == CallStatus(Code.OK)
    assert sink.batches == [[b"%d" % i for i in range(300)]]


async def test_requests_of_one_turn_leave_in_one_write_and_a_cancel_at_once(
    connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await fake()
    channel = connect(worker.address)
    connection_made = recorder()
    channel.open_stream(METHOD, b"", connection_made)
    connection = await worker.connection()
    await connection.requests(1)
    writes: list[bytes] = []
    transport = channel._links[0]._transport
    monkeypatch.setattr(channel._links[0], "_transport", type("Tap", (), {"write": writes.append, "is_closing": lambda self: False})())
    first = channel.open_stream(METHOD, b"hello", recorder())
    channel.open_stream(METHOD, b"again", recorder())
    await asyncio.sleep(0)
    (requests,) = writes
    assert message(b"hello") in requests
    assert requests.endswith(message(b"again"))
    first.cancel()
    monkeypatch.setattr(channel._links[0], "_transport", transport)
    assert writes[1:] == [b"\x00\x00\x04\x03\x00\x00\x00\x00\x03\x00\x00\x00\x08"]


async def test_what_sinks_do_in_one_read_leaves_in_one_write(
    connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await fake()
    channel = connect(worker.address)
    sinks, later = [recorder() for _ in range(3)], recorder()
    calls = [channel.open_stream(METHOD, b"", sink) for sink in sinks]
    connection = await worker.connection()
    await connection.requests(3)
    sinks[0].on_batch = lambda _: calls[0].cancel()
    sinks[1].on_batch = lambda _: channel.open_stream(METHOD, b"later", later)
    writes: list[bytes] = []
    monkeypatch.setattr(channel._links[0], "_transport", type("Tap", (), {"write": writes.append, "is_closing": lambda self: False})())
    connection.send(*(frame for stream_id in (1, 3, 5) for frame in (connection.headers(stream_id), DataFrame(stream_id, message(b"x")))))
    await sinks[2].until_messages(1)
    await asyncio.sleep(0)
    monkeypatch.undo()
    (write,) = writes
    assert write.startswith(b"\x00\x00\x04\x03\x00\x00\x00\x00\x01")
    assert write.endswith(message(b"later"))


async def test_call_cancelled_by_another_calls_sink_gets_nothing_of_the_same_read(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    first, second = recorder(), recorder()
    channel.open_stream(METHOD, b"", first)
    call = channel.open_stream(METHOD, b"", second)
    first.on_batch = lambda _: call.cancel()
    connection = await worker.connection()
    await connection.requests(2)
    connection.send(*(frame for stream_id in (1, 3) for frame in (connection.headers(stream_id), DataFrame(stream_id, message(b"x")))))
    connection.send(connection.trailers(1), connection.trailers(3))
    assert (await second.until_closed()).code is Code.CANCELLED
    assert second.messages == []
    assert (await first.until_closed()).code is Code.OK


async def test_cancel_in_a_read_makes_room_for_a_call_that_waits(
    connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LINKS_LIMIT", 1)
    worker = await fake({MAX_STREAMS: 1})
    channel = connect(worker.address)
    first, second = recorder(), recorder()
    call = channel.open_stream(METHOD, b"", first)
    first.on_batch = lambda _: call.cancel()
    channel.open_stream(METHOD, b"", second)
    connection = await worker.connection()
    await connection.requests(1)
    connection.send(connection.headers(1), DataFrame(1, message(b"x")))
    await connection.requests(2)
    connection.answer(3)
    assert (await second.until_closed()).code is Code.OK


async def test_connection_has_no_delay_and_tcp_keepalive(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    channel.open_stream(METHOD, b"", recorder())
    await (await worker.connection()).requests(1)
    sock = channel._links[0]._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_reset_with_cancel_past_the_deadline_is_the_deadline(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    sink = recorder()
    call = channel.open_stream(METHOD, b"", sink, timeout_s=30)
    connection = await worker.connection()
    await connection.requests(1)
    call._deadline_at = 0.0  # the worker's clock is ahead
    connection.send(RstStreamFrame(1, error_code=8))
    assert (await sink.until_closed()).code is Code.DEADLINE_EXCEEDED


# -- dialling ------------------------------------------------------------------------------------------------


async def test_calls_made_while_dialling_wait_for_the_greeting(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake(greet=False)
    channel = connect(worker.address)
    sinks = [recorder(), recorder()]
    for sink in sinks:
        channel.open_stream(METHOD, b"", sink)
    connection = await worker.connection()
    await connection.first(SettingsFrame)
    assert not connection.of(HeadersFrame)
    connection.greet()
    await connection.requests(2)
    connection.answer(1)
    connection.answer(3)
    for sink in sinks:
        assert (await sink.until_closed()).code is Code.OK
    assert len(worker.connections) == 1


@pytest.mark.parametrize(("timeout_s", "code"), [(None, Code.CANCELLED), (0.05, Code.DEADLINE_EXCEEDED)])
async def test_call_that_ends_while_dialling_is_never_sent(
    connect: Any, fake: Any, recorder: Any, timeout_s: float | None, code: Code
) -> None:
    worker = await fake(greet=False)
    channel = connect(worker.address)
    gone, kept = recorder(), recorder()
    call = channel.open_stream(METHOD, b"gone", gone, timeout_s=timeout_s)
    channel.open_stream(METHOD, b"kept", kept)
    connection = await worker.connection()
    if timeout_s is None:
        call.cancel()
    assert (await gone.until_closed()).code is code
    connection.greet()
    await connection.requests(1)
    connection.answer(1)
    assert (await kept.until_closed()).code is Code.OK
    assert [frame.data for frame in connection.of(DataFrame)] == [message(b"kept")]


async def test_listener_that_never_greets_times_out(connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialer, "DIAL_TIMEOUT_S", 0.05)
    worker = await fake(greet=False)
    sink = recorder()
    connect(worker.address).open_stream(METHOD, b"", sink)
    status = await sink.until_closed()
    assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
    assert "timed out" in status.message
    await asyncio.wait_for((await worker.connection()).closed.wait(), 10)


async def test_peer_that_is_not_http2_is_named(connect: Any, recorder: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sink = recorder()
    connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}").open_stream(METHOD, b"", sink)
    status = await sink.until_closed()
    assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
    assert "first frame is not SETTINGS" in status.message
    server.close()
    await server.wait_closed()


async def test_tls_peer_without_alpn_is_named(connect: Any, fake: Any, recorder: Any, certificates: Any) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.server, certificates.server_key)
    worker = await fake(tls=context)
    sink = recorder()
    connect(worker.address, TlsOptions(certificates.ca, server_name="localhost")).open_stream(METHOD, b"", sink)
    status = await sink.until_closed()
    assert status.code is Code.UNAVAILABLE
    assert "ALPN" in status.message


async def test_call_after_a_failed_dial_is_refused_until_the_rest_is_over(
    connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialer, "REST_MIN_S", 1000.0)
    monkeypatch.setattr(dialer, "REST_MAX_S", 1000.0)
    worker = await fake()
    monkeypatch.setattr(TcpAddress, "resolve", nothing_listens)
    channel = connect(worker.address)
    for _ in range(2):
        sink = recorder()
        channel.open_stream(METHOD, b"", sink)
        status = await sink.until_closed()
        assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
        assert "Connect call failed" in status.message
    monkeypatch.undo()
    late = recorder()
    channel.open_stream(METHOD, b"", late)
    assert (await late.until_closed()).code is Code.UNAVAILABLE
    assert not worker.connections
    channel._dialer._rest_until = 0.0
    served = recorder()
    channel.open_stream(METHOD, b"", served)
    connection = await worker.connection()
    await connection.requests(1)
    connection.answer(1)
    assert (await served.until_closed()).code is Code.OK


async def nothing_listens(_: TcpAddress) -> list[tuple[str, int]]:
    return [("127.0.0.1", 1)]


async def test_dials_go_round_the_addresses_of_a_name(connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [await fake(), await fake()]

    async def resolve(_: TcpAddress) -> list[tuple[str, int]]:
        return [("127.0.0.1", 1), *(("127.0.0.1", int(worker.address.rpartition(":")[2])) for worker in workers)]

    monkeypatch.setattr(TcpAddress, "resolve", resolve)
    channel = connect("dns:///workers.test:1")
    for number, worker in ((1, workers[0]), (2, workers[0]), (1, workers[1])):
        sink = recorder()
        channel.open_stream(METHOD, b"", sink)
        connection = await worker.connection(number)
        await connection.requests(1)
        connection.writer.transport.abort()
        assert (await sink.until_closed()).connection_lost


async def test_name_that_does_not_resolve_closes_unavailable(connect: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_: TcpAddress) -> list[tuple[str, int]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(TcpAddress, "resolve", resolve)
    sink = recorder()
    connect("dns:///missing.test:1").open_stream(METHOD, b"", sink)
    assert "not known" in (await sink.until_closed()).message


# -- room ----------------------------------------------------------------------------------------------------


async def test_full_connection_gets_a_second_one(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake({MAX_STREAMS: 1})
    channel = connect(worker.address)
    sinks = [recorder(), recorder()]
    for sink in sinks:
        channel.open_stream(METHOD, b"", sink)
    connections = [await worker.connection(1), await worker.connection(2)]
    for connection in connections:
        await connection.requests(1)
    for connection, sink in zip(connections, sinks, strict=True):
        connection.answer(1)
        assert (await sink.until_closed()).code is Code.OK


async def test_calls_without_room_wait_in_order(connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LINKS_LIMIT", 1)
    worker = await fake({MAX_STREAMS: 1})
    channel = connect(worker.address)
    sinks = [recorder() for _ in range(4)]
    calls = [channel.open_stream(METHOD, b"%d" % i, sink) for i, sink in enumerate(sinks)]
    connection = await worker.connection()
    await connection.requests(1)
    calls[1].cancel()
    assert (await sinks[1].until_closed()).code is Code.CANCELLED
    connection.answer(1)
    await connection.requests(2)
    calls[2].cancel()  # makes room as an answer does
    await connection.requests(3)
    connection.answer(5)
    assert (await sinks[3].until_closed()).code is Code.OK
    assert [frame.data[5:] for frame in connection.of(DataFrame)] == [b"0", b"2", b"3"]
    assert channel.open_calls == 0


async def test_call_over_the_waiting_limit_is_refused(connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "WAITING_LIMIT", 2)
    worker = await fake(greet=False)
    channel = connect(worker.address)
    waiting = [recorder(), recorder()]
    for sink in waiting:
        channel.open_stream(METHOD, b"", sink)
    refused = recorder()
    channel.open_stream(METHOD, b"", refused)
    assert (await refused.until_closed()).code is Code.RESOURCE_EXHAUSTED
    assert not any(sink.statuses for sink in waiting)


async def test_waiting_calls_survive_a_failed_extra_dial_and_hear_when_the_last_link_is_lost(
    connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await fake({MAX_STREAMS: 1})
    channel = connect(worker.address)
    sinks = [recorder() for _ in range(3)]
    channel.open_stream(METHOD, b"", sinks[0])
    connection = await worker.connection()
    await connection.requests(1)
    monkeypatch.setattr(TcpAddress, "resolve", nothing_listens)
    monkeypatch.setattr(channel._dialer, "_rest_s", 1000.0)
    for sink in sinks[1:]:
        channel.open_stream(METHOD, b"", sink)
    await asyncio.wait([channel._dial])
    assert channel._dialer.resting
    assert not sinks[1].statuses
    connection.answer(1)
    await connection.requests(2)
    connection.writer.transport.abort()
    for sink in sinks[1:]:
        status = await sink.until_closed()
        assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)


# -- a connection's life -------------------------------------------------------------------------------------


async def test_violation_costs_the_connection_and_the_next_call_gets_another(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    sinks = [recorder(), recorder()]
    for sink in sinks:
        channel.open_stream(METHOD, b"", sink)
    first = await worker.connection()
    await first.requests(2)
    first.writer.write(b"\x00\x00\x00\x00\x00\x00\x00\x00\x00")  # DATA on stream 0
    for sink in sinks:
        status = await sink.until_closed()
        assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
        assert "stream 0" in status.message
    assert (await first.first(GoAwayFrame)).error_code == 1
    await asyncio.wait_for(first.closed.wait(), 10)
    served = recorder()
    channel.open_stream(METHOD, b"", served)
    second = await worker.connection(2)
    await second.requests(1)
    second.answer(1, b"fine")
    assert (await served.until_closed()).code is Code.OK


async def test_goaway_fails_the_streams_it_names_unseen(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    unseen = recorder()
    channel.open_stream(METHOD, b"", unseen)
    connection = await worker.connection()
    await connection.requests(1)
    connection.send(GoAwayFrame(0, last_stream_id=0, error_code=11, additional_data=b"too_many_pings"))
    status = await unseen.until_closed()
    assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
    assert "ENHANCE_YOUR_CALM, too_many_pings" in status.message
    await asyncio.wait_for(connection.closed.wait(), 10)
    assert channel.open_calls == 0


async def test_silent_peer_is_pinged_and_given_up(connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "KEEPALIVE_S", 0.02)
    monkeypatch.setattr(link, "KEEPALIVE_TIMEOUT_S", 0.02)
    worker = await fake()
    sink = recorder()
    connect(worker.address).open_stream(METHOD, b"", sink)
    connection = await worker.connection()
    await connection.first(PingFrame)
    status = await sink.until_closed()
    assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
    assert "ping" in status.message


async def test_peer_that_answers_pings_is_kept(connect: Any, fake: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "KEEPALIVE_S", 0.02)
    monkeypatch.setattr(link, "KEEPALIVE_TIMEOUT_S", 0.3)
    worker = await fake()
    sink = recorder()
    connect(worker.address).open_stream(METHOD, b"", sink)
    connection = await worker.connection()
    for number in (1, 2):
        await connection.nth(PingFrame, number)
        connection.send(PingFrame(0, b"gateway?", flags=["ACK"]))
    connection.answer(1)
    assert (await sink.until_closed()).code is Code.OK


async def test_closed_channel_says_goaway(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    channel.open_stream(METHOD, b"", recorder())
    connection = await worker.connection()
    await connection.requests(1)
    await channel.aclose()
    assert (await connection.first(GoAwayFrame)).error_code == 0
    await asyncio.wait_for(connection.closed.wait(), 10)


async def test_channel_closed_while_dialling_ends_its_calls(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake(greet=False)
    channel = connect(worker.address)
    sink = recorder()
    channel.open_stream(METHOD, b"", sink)
    connection = await worker.connection()
    await channel.aclose()
    assert (await sink.until_closed()).code is Code.UNAVAILABLE
    await asyncio.wait_for(connection.closed.wait(), 10)


async def test_ten_thousand_cancels_leave_nothing_behind(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    kept = recorder()
    channel.open_stream(METHOD, b"", kept)
    connection = await worker.connection()
    await connection.requests(1)
    closed = recorder()
    for number in range(100):
        calls = [channel.open_stream(METHOD, b"", closed, timeout_s=300) for _ in range(100)]
        assert channel.open_calls == 101
        for call in calls:
            call.cancel()
        await connection.first(RstStreamFrame, lambda reset, last=201 + 200 * number: reset.stream_id == last)
        connection.frames.clear()
    assert [status.code for status in closed.statuses] == [Code.CANCELLED] * 10_000
    assert channel.open_calls == 1
    connection.answer(1, b"still there")
    assert (await kept.until_closed()).code is Code.OK
    assert len(worker.connections) == 1
    del calls, call
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is LaneCall]


def test_uvloop_carries_calls(fake_worker: Any, recorder: Any) -> None:
    async def scenario() -> None:
        worker = fake_worker({}, True)
        await worker.start()
        async with asyncio.TaskGroup() as tasks:
            channel = open_transport("lane", tasks).connect(worker.address)
            sink = recorder()
            channel.open_stream(METHOD, b"x" * 50_000, sink, timeout_s=10)
            connection = await worker.connection()
            await connection.requests(1)
            connection.answer(1, *(b"%d" % i for i in range(1_000)))
            assert (await sink.until_closed()).code is Code.OK
            assert sink.messages == [b"%d" % i for i in range(1_000)]
            await channel.aclose()
        await worker.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
