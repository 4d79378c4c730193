"""base.Channel's contract, over both transports, against a real gRPC server and a worker made of frames."""

from __future__ import annotations

import asyncio
import gc
import struct
from typing import Any

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame

from gateway.errors import Code
from gateway.transport import TransportKind, open_transport
from gateway.transport.base import MESSAGE_LIMIT_BYTES, WINDOW_BYTES, CallFailed, CallStatus
from gateway.transport.tls import TlsOptions


def path(name: str) -> str:
    return f"/test.Service/{name}"


def numbered(count: int, size: int) -> list[bytes]:
    return [i.to_bytes(4, "big").ljust(size, b".") for i in range(count)]


# -- answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(1, 4), (5_000, 100), (40, 65_536), (2, 5 << 20)])
async def test_stream_of_any_size_arrives_complete_and_in_order(connect: Any, serve: Any, recorder: Any, count: int, size: int) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("count"), struct.pack(">II", count, size), sink)
    assert await sink.until_closed() == CallStatus(Code.OK)
    assert sink.messages == numbered(count, size)


async def test_streams_side_by_side_do_not_mix(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sinks = [recorder() for _ in range(50)]
    for size, sink in enumerate(sinks, start=10):
        channel.open_stream(path("count"), struct.pack(">II", 100, size), sink)
    for size, sink in enumerate(sinks, start=10):
        assert (await sink.until_closed()).code is Code.OK
        assert sink.messages == numbered(100, size)


@pytest.mark.parametrize("size", [0, 1, 70_000, 8 << 20])
async def test_unary_with_request_of_any_size_returns_the_answer(connect: Any, serve: Any, size: int) -> None:
    server = await serve()
    request = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await connect(server.address).unary(path("echo"), request, timeout_s=20) == request


async def test_unary_that_fails_raises_with_the_status(connect: Any, serve: Any) -> None:
    server = await serve()
    with pytest.raises(CallFailed, match="FAILED_PRECONDITION: because") as caught:
        await connect(server.address).unary(path("fail"), b"because", timeout_s=10)
    assert caught.value.status.code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize(("method", "request_bytes"), [("nothing", b""), ("count", struct.pack(">II", 3, 4))])
async def test_unary_without_exactly_one_message_raises_internal(connect: Any, serve: Any, method: str, request_bytes: bytes) -> None:
    server = await serve()
    with pytest.raises(CallFailed) as caught:
        await connect(server.address).unary(path(method), request_bytes, timeout_s=10)
    assert caught.value.status.code is Code.INTERNAL


async def test_error_after_messages_comes_after_them_with_message_details_and_trailers(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("fail"), "100% grün\n→ nein".encode(), sink)
    status = await sink.until_closed()
    assert sink.messages == [b"before"]
    assert status.code is Code.FAILED_PRECONDITION
    assert status.message == "100% grün\n→ nein"
    assert status.details == b"\x00\xffdetails"
    assert status.trailers == {"hint": "try again", "blob-bin": "AQL+"}
    assert not status.connection_lost


async def test_error_message_of_64_kib_arrives_whole(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("fail"), b"t" * 65_536, sink)
    status = await sink.until_closed()
    assert (status.code, len(status.message)) == (Code.FAILED_PRECONDITION, 65_536)


async def test_workers_own_unavailable_is_not_a_lost_connection(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("unavailable"), b"", sink)
    assert await sink.until_closed() == CallStatus(Code.UNAVAILABLE, "not now")


async def test_unknown_method_is_unimplemented(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream("/test.Service/Missing", b"", sink)
    assert (await sink.until_closed()).code is Code.UNIMPLEMENTED


# -- requests ------------------------------------------------------------------------------------------------


async def test_metadata_and_deadline_reach_the_worker(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    metadata = [("x-request", "r1"), ("blob-bin", "AQL+")]
    connect(server.address).open_stream(path("echo"), b"", sink, timeout_s=30, metadata=metadata)
    assert (await sink.until_closed()).code is Code.OK
    (seen,) = server.service.seen
    assert seen["metadata"]["x-request"] == "r1"
    assert seen["metadata"]["blob-bin"] == b"\x01\x02\xfe"
    assert 20 < seen["remaining_s"] <= 30.1


@pytest.mark.parametrize("entry", [("Upper", "x"), ("", "x"), ("name", "line\nbreak"), ("name", "ü"), (":path", "/")])
async def test_metadata_that_is_not_valid_closes_internal(connect: Any, serve: Any, recorder: Any, entry: tuple[str, str]) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("echo"), b"", sink, metadata=[entry])
    status = await sink.until_closed()
    assert status.code is Code.INTERNAL
    assert "metadata" in status.message
    assert not server.service.seen


async def test_request_over_the_limit_closes_resource_exhausted(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("echo"), bytes(MESSAGE_LIMIT_BYTES + 1), sink)
    assert (await sink.until_closed()).code is Code.RESOURCE_EXHAUSTED


# -- ends from this side -------------------------------------------------------------------------------------


async def test_cancel_stops_the_worker_and_closes_once(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_stream(path("silent"), b"hello", sink)
    await sink.until_messages(1)
    call.cancel()
    assert not sink.statuses, "on_close was called from within cancel"
    call.cancel()
    assert (await sink.until_closed()).code is Code.CANCELLED
    await server.service.until(lambda: server.service.active == 0)
    call.cancel()
    call.pause_reading()
    call.resume_reading()
    await asyncio.sleep(0)
    assert len(sink.statuses) == 1


async def test_cancel_in_on_messages_ends_delivery(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_stream(path("endless"), b"x" * 100, sink)
    sink.on_batch = lambda _: call.cancel()
    assert (await sink.until_closed()).code is Code.CANCELLED
    assert len(sink.batches) == 1
    await server.service.until(lambda: server.service.active == 0)


async def test_cancel_right_after_open_closes_cancelled(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()
    channel.open_stream(path("silent"), b"x", sink).cancel()
    assert (await sink.until_closed()).code is Code.CANCELLED
    assert await channel.unary(path("echo"), b"still there", timeout_s=10) == b"still there"


async def test_task_cancelled_in_unary_cancels_the_call(connect: Any, serve: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(channel.unary(path("silent"), b"x", timeout_s=30))
        await server.service.until(lambda: server.service.active == 1)
        waiting.cancel()
    await server.service.until(lambda: server.service.active == 0)


async def test_deadline_closes_deadline_exceeded_and_stops_the_worker(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("silent"), b"x", sink, timeout_s=0.2)
    assert (await sink.until_closed()).code is Code.DEADLINE_EXCEEDED
    assert sink.messages == [b"x"]
    await server.service.until(lambda: server.service.active == 0)


async def test_deadline_of_a_paused_call_closes_it(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_stream(path("silent"), b"x", sink, timeout_s=0.3)
    sink.on_batch = lambda _: call.pause_reading()
    assert (await sink.until_closed()).code is Code.DEADLINE_EXCEEDED


async def test_deadline_in_the_past_closes_deadline_exceeded(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    connect(server.address).open_stream(path("silent"), b"x", sink, timeout_s=-1)
    assert (await sink.until_closed()).code is Code.DEADLINE_EXCEEDED


async def test_closed_channel_ends_its_calls_and_refuses_others(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    open_call, late_call = recorder(), recorder()
    channel.open_stream(path("silent"), b"x", open_call)
    await open_call.until_messages(1)
    await channel.aclose()
    assert (await open_call.until_closed()).code is Code.UNAVAILABLE
    channel.open_stream(path("echo"), b"", late_call)
    assert not late_call.statuses, "on_close was called from within open_stream"
    assert (await late_call.until_closed()).code is Code.UNAVAILABLE
    await server.service.until(lambda: server.service.active == 0)
    await channel.aclose()


async def test_sink_that_raises_loses_only_its_call(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    sink = recorder()

    def raises(_: list[bytes]) -> None:
        raise RuntimeError("a bug in the sink")

    sink.on_batch = raises
    channel.open_stream(path("silent"), b"x", sink)
    assert (await sink.until_closed()).code is Code.INTERNAL
    await server.service.until(lambda: server.service.active == 0)
    assert await channel.unary(path("echo"), b"still there", timeout_s=10) == b"still there"


async def test_call_after_the_task_group_has_ended_is_refused(kind: TransportKind, serve: Any, recorder: Any) -> None:
    server = await serve()
    async with asyncio.TaskGroup() as tasks:
        channel = open_transport(kind, tasks).connect(server.address)
    sink = recorder()
    channel.open_stream(path("echo"), b"", sink)
    status = await sink.until_closed()
    assert status.code is Code.UNAVAILABLE
    assert "shutting down" in status.message
    await channel.aclose()


@pytest.mark.parametrize("greet", [True, False])
async def test_task_group_cancelled_ends_its_calls(kind: TransportKind, fake: Any, recorder: Any, greet: bool) -> None:
    worker = await fake(greet=greet)
    sink = recorder()

    async def owner() -> None:
        async with asyncio.TaskGroup() as tasks:
            channel = open_transport(kind, tasks).connect(worker.address)
            try:
                channel.open_stream(path("x"), b"", sink)
                await asyncio.Event().wait()
            finally:
                await channel.aclose()

    task = asyncio.ensure_future(owner())
    connection = await worker.connection()
    if greet:
        await connection.requests(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await sink.until_closed()).code is Code.UNAVAILABLE


# -- backpressure --------------------------------------------------------------------------------------------


async def test_paused_call_stops_the_worker_and_loses_nothing(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    message = b"x" * 16_384
    sink = recorder()
    call = channel.open_stream(path("endless"), message, sink)
    sink.on_batch = lambda _: call.pause_reading()
    await sink.until_messages(1)
    # A call that goes through afterwards has given the stalled stream every chance to send on.
    for _ in range(50):
        assert await channel.unary(path("echo"), b"ping", timeout_s=10) == b"ping"
    stalled_at = server.service.sent
    for _ in range(50):
        assert await channel.unary(path("echo"), b"ping", timeout_s=10) == b"ping"
    assert server.service.sent <= stalled_at + 1
    assert sink.size_bytes <= WINDOW_BYTES + len(message)
    assert not sink.statuses
    sink.on_batch = None
    call.resume_reading()
    await server.service.until(lambda: server.service.sent > stalled_at + 200)
    await sink.until_messages(stalled_at + 200)
    call.cancel()
    await sink.until_closed()
    assert set(sink.messages) == {message}


async def test_many_stalled_streams_do_not_hold_up_another(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    stalled = []
    for _ in range(20):
        sink = recorder()
        call = channel.open_stream(path("endless"), b"x" * 65_536, sink)
        sink.on_batch = lambda _, call=call: call.pause_reading()
        stalled.append((call, sink))
    for _, sink in stalled:
        await sink.until_messages(1)
    lively = recorder()
    channel.open_stream(path("count"), struct.pack(">II", 200, 65_536), lively)
    assert (await lively.until_closed()).code is Code.OK
    assert len(lively.messages) == 200
    for call, _ in stalled:
        call.cancel()
    await server.service.until(lambda: server.service.active == 0)


async def test_paused_call_gets_the_end_with_every_message_when_resumed(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    sink = recorder()
    call = connect(server.address).open_stream(path("count"), struct.pack(">II", 100, 1_000), sink)
    call.pause_reading()
    call.resume_reading()
    assert (await sink.until_closed()).code is Code.OK
    assert sink.messages == numbered(100, 1_000)


# -- connections ---------------------------------------------------------------------------------------------


async def test_unix_socket_carries_calls(connect: Any, serve: Any, tmp_path: Any) -> None:
    server = await serve(f"unix:{tmp_path}/worker.sock")
    channel = connect(server.address)
    assert channel.address == f"unix:{tmp_path}/worker.sock"
    assert await channel.unary(path("echo"), b"hi", timeout_s=10) == b"hi"


async def test_dns_name_resolves(connect: Any, serve: Any) -> None:
    server = await serve()
    port = server.address.rpartition(":")[2]
    assert await connect(f"dns:///localhost:{port}").unary(path("echo"), b"hi", timeout_s=10) == b"hi"


async def test_nobody_listening_closes_unavailable_and_lost(connect: Any, recorder: Any, tmp_path: Any) -> None:
    sink = recorder()
    connect(f"unix:{tmp_path}/missing.sock").open_stream(path("echo"), b"", sink)
    status = await sink.until_closed()
    assert status.code is Code.UNAVAILABLE
    assert status.connection_lost
    assert status.message


async def test_connection_cut_in_a_stream_closes_it_lost_and_later_calls_reconnect(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    cut, served = recorder(), recorder()
    channel.open_stream(path("x"), b"", cut)
    first = await worker.connection()
    await first.requests(1)
    first.send(first.headers(1), DataFrame(1, b"\x00\x00\x00\x00\x03one\x00\x00\x00"))
    await cut.until_messages(1)
    first.writer.transport.abort()
    status = await cut.until_closed()
    assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)
    assert cut.messages == [b"one"]
    channel.open_stream(path("x"), b"", served)
    second = await worker.connection(2)
    await second.requests(1)
    second.answer(1, b"again")
    assert (await served.until_closed()).code is Code.OK
    assert served.messages == [b"again"]


async def test_goaway_drains_the_old_connection_and_later_calls_take_a_new_one(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    channel = connect(worker.address)
    old = recorder()
    channel.open_stream(path("x"), b"", old)
    first = await worker.connection()
    await first.requests(1)
    first.send(first.headers(1), DataFrame(1, b"\x00\x00\x00\x00\x00"), GoAwayFrame(0, last_stream_id=1))
    await old.until_messages(1)
    arrived = asyncio.ensure_future(worker.connection(2))
    while not arrived.done():  # a call that the core sends before it has looked at the GOAWAY is refused
        later = recorder()
        channel.open_stream(path("x"), b"", later)
        refused = asyncio.ensure_future(later.until_closed())
        await asyncio.wait([arrived, refused], return_when=asyncio.FIRST_COMPLETED)
        if refused.done():
            assert refused.result().code is Code.UNAVAILABLE
        else:
            refused.cancel()
    second = await arrived
    await second.requests(1)
    second.answer(1, b"new")
    assert (await later.until_closed()).code is Code.OK
    first.send(first.trailers(1))
    assert (await old.until_closed()).code is Code.OK
    await asyncio.wait_for(first.closed.wait(), 10)


@pytest.mark.parametrize(
    ("reset", "code"),
    [
        (0x1, Code.INTERNAL),
        (0x2, Code.INTERNAL),
        (0x3, Code.INTERNAL),
        (0x7, Code.UNAVAILABLE),
        (0x8, Code.CANCELLED),
        (0xB, Code.RESOURCE_EXHAUSTED),
        (0xC, Code.PERMISSION_DENIED),
    ],
)
async def test_reset_by_the_worker_becomes_grpcs_code(connect: Any, fake: Any, recorder: Any, reset: int, code: Code) -> None:
    worker = await fake()
    sink = recorder()
    connect(worker.address).open_stream(path("x"), b"", sink)
    connection = await worker.connection()
    await connection.requests(1)
    connection.send(connection.headers(1), RstStreamFrame(1, error_code=reset))
    status = await sink.until_closed()
    assert status.code is code
    assert not status.connection_lost


@pytest.mark.parametrize(
    ("http_status", "code"),
    [
        ("400", Code.INTERNAL),
        ("401", Code.UNAUTHENTICATED),
        ("403", Code.PERMISSION_DENIED),
        ("404", Code.UNIMPLEMENTED),
        ("429", Code.UNAVAILABLE),
        ("503", Code.UNAVAILABLE),
        ("500", Code.UNKNOWN),
        ("200", Code.UNKNOWN),
    ],
)
async def test_answer_that_is_not_grpc_becomes_a_status(connect: Any, fake: Any, recorder: Any, http_status: str, code: Code) -> None:
    worker = await fake()
    sink = recorder()
    connect(worker.address).open_stream(path("x"), b"", sink)
    connection = await worker.connection()
    await connection.requests(1)
    connection.send(connection.headers(1, [(":status", http_status), ("content-type", "text/html")], end_stream=True))
    assert (await sink.until_closed()).code is code


async def test_answer_of_trailers_only_is_the_status(connect: Any, fake: Any, recorder: Any) -> None:
    worker = await fake()
    sink = recorder()
    connect(worker.address).open_stream(path("x"), b"", sink)
    connection = await worker.connection()
    await connection.requests(1)
    fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "no%20such%20thing%zz")]
    connection.send(connection.headers(1, fields, end_stream=True))
    assert await sink.until_closed() == CallStatus(Code.NOT_FOUND, "no such thing%zz")


@pytest.mark.parametrize(
    ("prefix", "code"),
    [(b"\x01\x00\x00\x00\x02", Code.INTERNAL), (b"\x00" + (MESSAGE_LIMIT_BYTES + 1).to_bytes(4, "big"), Code.RESOURCE_EXHAUSTED)],
)
async def test_message_that_cannot_be_taken_ends_the_call(connect: Any, fake: Any, recorder: Any, prefix: bytes, code: Code) -> None:
    worker = await fake()
    channel = connect(worker.address)
    sink = recorder()
    channel.open_stream(path("x"), b"", sink)
    connection = await worker.connection()
    await connection.requests(1)
    connection.send(connection.headers(1), DataFrame(1, b"\x00\x00\x00\x00\x02ok"), DataFrame(1, prefix + b"no"))
    assert (await sink.until_closed()).code is code
    await connection.first(RstStreamFrame)


# -- TLS -----------------------------------------------------------------------------------------------------


async def test_tls_carries_calls(connect: Any, serve: Any, certificates: Any) -> None:
    server = await serve("localhost:0", certificates.server_credentials(ask_client=False))
    channel = connect(server.address, TlsOptions(ca_file=certificates.ca))
    assert await channel.unary(path("echo"), b"secret", timeout_s=10) == b"secret"


async def test_tls_with_client_certificate_is_let_in(connect: Any, serve: Any, certificates: Any) -> None:
    server = await serve("127.0.0.1:0", certificates.server_credentials(ask_client=True))
    tls = TlsOptions(certificates.ca, certificates.client, certificates.client_key, server_name="localhost")
    assert await connect(server.address, tls).unary(path("echo"), b"secret", timeout_s=10) == b"secret"


@pytest.mark.parametrize("fault", ["no client certificate", "wrong name", "unknown authority"])
async def test_tls_that_does_not_fit_closes_unavailable_and_lost(
    connect: Any, serve: Any, recorder: Any, certificates: Any, fault: str
) -> None:
    server = await serve("localhost:0", certificates.server_credentials(ask_client=fault == "no client certificate"))
    tls = {
        "no client certificate": TlsOptions(certificates.ca),
        "wrong name": TlsOptions(certificates.ca, server_name="other.example.org"),
        "unknown authority": TlsOptions(),
    }[fault]
    sink = recorder()
    connect(server.address, tls).open_stream(path("echo"), b"", sink)
    status = await sink.until_closed()
    assert (status.code, status.connection_lost) == (Code.UNAVAILABLE, True)


def test_tls_options_with_half_a_pair_are_refused(certificates: Any) -> None:
    with pytest.raises(ValueError, match="belong together"):
        TlsOptions(certificate_file=certificates.client)


# -- storms --------------------------------------------------------------------------------------------------


async def test_cancel_storm_leaves_nothing_behind(connect: Any, serve: Any, recorder: Any) -> None:
    server = await serve()
    channel = connect(server.address)
    for round_ in range(10):
        sinks = [recorder() for _ in range(100)]
        calls = [channel.open_stream(path("silent"), b"x", sink, timeout_s=300) for sink in sinks]
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
    await asyncio.sleep(0)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing).__name__ in ("LaneCall", "GrpcioCall")]
