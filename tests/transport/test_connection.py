"""connection.py without a socket: any fragmentation, any garbage, flow control, and the rules of RFC 9113."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import hpack
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Code
from gateway.transport.base import WINDOW_BYTES, CallStatus
from gateway.transport.connection import REPLIES_LIMIT, ClientConnection, ConnectionState
from gateway.transport.frames import ACK, END_HEADERS, HAS_PRIORITY, PADDED, PREFACE, ErrorCode
from gateway.transport.reader import BLOCK_LIMIT_BYTES, MAX_FRAME_BYTES
from gateway.transport.stream import Stream

RESPONSE = [(":status", "200"), ("content-type", "application/grpc"), ("server", "fake")]
GREETING = SettingsFrame(0).serialize()


def message(data: bytes) -> bytes:
    return b"\x00" + len(data).to_bytes(4, "big") + data


class Call:
    """What one stream's reader has seen."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.messages: list[bytes] = []
        self.deliveries = 0


class Client:
    """A connection with its readers: each takes its news after every read."""

    def __init__(self, *, message_limit_bytes: int = 1 << 20, greet: bool = True) -> None:
        self.connection = ClientConnection[Stream]("http", "worker:1", message_limit_bytes=message_limit_bytes)
        self.calls: dict[int, Call] = {}
        self.decoder = hpack.Decoder()
        self.sent: list[Frame] = []
        assert self.connection.take_output().startswith(PREFACE)
        if greet:
            self.read(GREETING)
            self.sent.clear()

    def open(self, request: bytes = b"", timeout_s: float | None = None, metadata: Iterable[tuple[str, str]] = ()) -> Call:
        call = Call()
        self.connection.open(call.stream, "/s/m", request, timeout_s, tuple(metadata))
        self.calls[id(call.stream)] = call
        self._collect_output()
        return call

    def read(self, data: bytes) -> None:
        for stream in self.connection.receive(data):
            call = self.calls[id(stream)]
            messages, stream.messages = stream.messages, None
            assert messages is not None
            call.messages += messages
            call.deliveries += bool(messages)
            self.connection.credit(stream)
        self._collect_output()

    def read_frames(self, *frames: Frame) -> None:
        self.read(b"".join(frame.serialize() for frame in frames))

    def sent_of(self, kind: type[Frame]) -> list[Frame]:
        return [frame for frame in self.sent if type(frame) is kind]

    def _collect_output(self) -> None:
        output = memoryview(self.connection.take_output())
        while output:
            frame, length = Frame.parse_frame_header(output[:9])
            frame.parse_body(output[9 : 9 + length])
            self.sent.append(frame)
            output = output[9 + length :]


def raw(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A frame that need not be a good one."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def headers(stream_id: int, fields: list[tuple[str, str]] | None = None, *, end_stream: bool = False) -> HeadersFrame:
    """A header block of literals only, that stands for itself."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode(RESPONSE if fields is None else fields, huffman=False)
    return HeadersFrame(stream_id, block, flags=["END_HEADERS", "END_STREAM"] if end_stream else ["END_HEADERS"])


def trailers(stream_id: int, *fields: tuple[str, str]) -> HeadersFrame:
    return headers(stream_id, list(fields) or [("grpc-status", "0")], end_stream=True)


# -- fragmentation -------------------------------------------------------------------------------------------


class UnknownFrame(Frame):
    """A type that no standard knows."""

    type = 0xEE
    stream_association = "either"

    def serialize_body(self) -> bytes:
        return b"?"


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[list[bytes]], bytes]:
    """A server's side of up to four calls, with every freedom that HTTP/2 leaves it: (messages of each call, the bytes)."""
    calls = draw(st.lists(st.lists(st.binary(max_size=40), max_size=6), min_size=1, max_size=4))
    choice = random.Random(draw(st.integers(0, 2**32)))  # a draw for each choice would take seconds
    encoder = hpack.Encoder()
    out: list[Frame] = []
    unsent: dict[int, bytes] = {}
    for stream_id, messages in zip(itertools.count(1, 2), calls, strict=False):
        out += split_block(choice, stream_id, encoder.encode(RESPONSE), [])
        unsent[stream_id] = b"".join(map(message, messages))
    while unsent:
        stream_id, body = choice.choice(list(unsent.items()))
        if body:
            size = choice.choice([0, 1, 4, 5, 6, 14, 45, len(body)])
            padding = choice.choice([None, 0, 7])
            out.append(DataFrame(stream_id, body[:size], pad_length=padding or 0, flags=[] if padding is None else ["PADDED"]))
            unsent[stream_id] = body[size:]
        else:
            block = encoder.encode([("grpc-status", "0"), ("n", str(stream_id))])
            out += split_block(choice, stream_id, block, ["END_STREAM"])
            del unsent[stream_id]
        if choice.random() < 0.3:
            others = [PingFrame(0, b"12345678"), PriorityFrame(1), SettingsFrame(0), UnknownFrame(0)]
            out.append(choice.choice(others))
    return calls, b"".join(frame.serialize() for frame in out)


def split_block(choice: random.Random, stream_id: int, block: bytes, flags: list[str]) -> list[Frame]:
    if choice.random() < 0.5:
        return [HeadersFrame(stream_id, block, flags=[*flags, "END_HEADERS"])]
    cut = choice.randint(0, len(block))
    return [HeadersFrame(stream_id, block[:cut], flags=flags), ContinuationFrame(stream_id, block[cut:], flags=["END_HEADERS"])]


@given(conversations(), st.data())
def test_any_fragmentation_gives_the_same_messages(conversation: tuple[list[list[bytes]], bytes], data: st.DataObject) -> None:
    expected, wire = conversation
    client = Client()
    calls = [client.open() for _ in expected]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        client.read(wire[start:stop])
    assert [call.messages for call in calls] == expected
    assert [call.stream.status for call in calls] == [CallStatus(Code.OK, trailers={"n": str(2 * i + 1)}) for i in range(len(calls))]
    assert client.connection.open_streams == 0


@given(conversations())
def test_read_byte_by_byte_gives_the_same_messages(conversation: tuple[list[list[bytes]], bytes]) -> None:
    expected, wire = conversation
    client = Client()
    calls = [client.open() for _ in expected]
    for at in range(len(wire)):
        client.read(wire[at : at + 1])
    assert [call.messages for call in calls] == expected
    assert all(call.stream.status is not None and call.stream.status.code is Code.OK for call in calls)


def test_one_read_of_many_frames_is_one_delivery() -> None:
    client = Client()
    first, second = client.open(), client.open()
    data = [DataFrame(stream_id, message(b"%d" % i)) for i in range(500) for stream_id in (1, 3)]
    client.read_frames(headers(1), headers(3), *data, trailers(1))
    assert first.messages == second.messages == [b"%d" % i for i in range(500)]
    assert (first.deliveries, second.deliveries) == (1, 1)
    assert first.stream.status == CallStatus(Code.OK)
    assert second.stream.status is None


# -- garbage -------------------------------------------------------------------------------------------------


def assert_clean(client: Client, calls: list[Call]) -> None:
    """Every call is over or still open, and a failed connection has said why, to its calls and to the peer."""
    if client.connection.state is ConnectionState.CLOSED:
        assert client.connection.failure
        assert all(call.stream.status is not None for call in calls)
        assert client.connection.open_streams == 0
        assert client.sent_of(GoAwayFrame)
    else:
        assert client.connection.open_streams == sum(call.stream.status is None for call in calls)


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_garbage_leaves_a_clean_state(reads: list[bytes], greeted: bool) -> None:
    client = Client(greet=greeted)
    calls = [client.open()] if greeted else []
    for data in reads:
        client.read(data)
    assert_clean(client, calls)


@given(conversations(), st.data())
def test_good_conversation_with_bytes_changed_leaves_a_clean_state(
    conversation: tuple[list[list[bytes]], bytes], data: st.DataObject
) -> None:
    expected, wire = conversation
    broken = bytearray(wire)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    client = Client(message_limit_bytes=100)
    calls = [client.open() for _ in expected]
    client.read(bytes(broken[: len(broken) // 2]))
    client.read(bytes(broken[len(broken) // 2 :]))
    assert_clean(client, calls)


@given(st.integers(0, 12), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5]), st.binary(max_size=30))
def test_any_single_frame_leaves_a_clean_state(kind: int, flags: int, stream_id: int, payload: bytes) -> None:
    client = Client()
    calls = [client.open(), client.open()]
    client.read_frames(headers(1))
    client.read(raw(kind, flags, stream_id, payload))
    assert_clean(client, calls)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (raw(0, 0, 0), ErrorCode.PROTOCOL_ERROR),
        (DataFrame(5, b""), ErrorCode.PROTOCOL_ERROR),
        (raw(1, END_HEADERS, 2), ErrorCode.PROTOCOL_ERROR),
        (HeadersFrame(1, b"\xff\xff\xff\xff", flags=["END_HEADERS"]), ErrorCode.COMPRESSION_ERROR),
        (ContinuationFrame(1, b""), ErrorCode.PROTOCOL_ERROR),
        (PushPromiseFrame(1, 2, flags=["END_HEADERS"]), ErrorCode.PROTOCOL_ERROR),
        (RstStreamFrame(7), ErrorCode.PROTOCOL_ERROR),
        (WindowUpdateFrame(0, 2**31 - 1), ErrorCode.FLOW_CONTROL_ERROR),
        (SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**31}), ErrorCode.FLOW_CONTROL_ERROR),
        (SettingsFrame(0, {SettingsFrame.MAX_FRAME_SIZE: 100}), ErrorCode.PROTOCOL_ERROR),
        (SettingsFrame(0, {SettingsFrame.ENABLE_PUSH: 1}), ErrorCode.PROTOCOL_ERROR),
        (raw(0xEE, 0, 0, bytes(MAX_FRAME_BYTES + 1)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(0, 0, 1, bytes(MAX_FRAME_BYTES + 1)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(0, 0, 1, message(bytes(MAX_FRAME_BYTES))), ErrorCode.FRAME_SIZE_ERROR),
        (raw(0, PADDED, 1, b"\x09x"), ErrorCode.PROTOCOL_ERROR),
        (raw(0, PADDED, 1), ErrorCode.FRAME_SIZE_ERROR),
        (raw(1, END_HEADERS | HAS_PRIORITY, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(3, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(4, 0, 1), ErrorCode.PROTOCOL_ERROR),
        (raw(4, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(4, ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(6, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(6, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (raw(7, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        (raw(7, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        (raw(8, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
        (raw(8, 0, 1, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    ],
)
def test_peer_that_breaks_the_protocol_costs_its_connection(frame: Frame | bytes, code: ErrorCode) -> None:
    client = Client()
    call = client.open()
    client.read_frames(headers(1), DataFrame(1, message(b"before")))
    client.read(frame if isinstance(frame, bytes) else frame.serialize())
    assert call.messages == [b"before"]
    assert call.stream.status is not None
    assert (call.stream.status.code, call.stream.status.connection_lost) == (Code.UNAVAILABLE, True)
    assert "broke the HTTP/2 protocol" in call.stream.status.message
    assert [goaway.error_code for goaway in client.sent_of(GoAwayFrame)] == [code]
    assert not client.connection.has_room


def test_messages_before_a_violation_in_the_same_read_are_delivered() -> None:
    client = Client()
    call = client.open()
    client.read_frames(headers(1), DataFrame(1, message(b"one")), DataFrame(9, b""))
    assert call.messages == [b"one"]
    assert call.stream.status is not None


def test_frame_between_headers_and_continuation_is_a_violation() -> None:
    client = Client()
    call = client.open()
    client.open()
    client.read_frames(headers(3))
    client.read_frames(HeadersFrame(1, b"\x88"), DataFrame(3, message(b"x")))
    assert client.connection.state is ConnectionState.CLOSED
    assert call.stream.status is not None


def test_flood_of_empty_continuations_is_a_violation() -> None:
    client = Client()
    client.open()
    client.read_frames(HeadersFrame(1, b""))
    flood = ContinuationFrame(1, b"").serialize() * 10_000
    for _ in range(BLOCK_LIMIT_BYTES // len(flood) + 1):
        client.read(flood)
    assert client.sent_of(GoAwayFrame)[0].error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_flood_of_pings_that_are_not_read_is_a_violation() -> None:
    client = Client()
    flood = PingFrame(0, b"12345678").serialize() * REPLIES_LIMIT
    client.connection.output_was_read()
    client.read(flood)
    assert client.connection.state is ConnectionState.OPEN
    client.connection.output_was_read()
    client.read(flood + flood)
    assert client.sent_of(GoAwayFrame)[0].error_code == ErrorCode.ENHANCE_YOUR_CALM


def test_http1_answer_names_the_cause() -> None:
    client = Client(greet=False)
    client.read(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert "first frame is not SETTINGS" in client.connection.failure


# -- answers -------------------------------------------------------------------------------------------------


def test_interim_answer_is_skipped() -> None:
    client = Client()
    call = client.open()
    client.read_frames(headers(1, [(":status", "103")]), headers(1), DataFrame(1, message(b"x")), trailers(1))
    assert call.messages == [b"x"]
    assert call.stream.status == CallStatus(Code.OK)


@pytest.mark.parametrize(
    ("frames", "code", "says"),
    [
        ([DataFrame(1, message(b""))], Code.INTERNAL, "before its headers"),
        ([headers(1), headers(1)], Code.INTERNAL, "second header block"),
        ([headers(1), DataFrame(1, b"", flags=["END_STREAM"])], Code.UNKNOWN, "without a grpc-status"),
        ([headers(1), trailers(1, ("other", "x"))], Code.UNKNOWN, "without a grpc-status"),
        ([headers(1), DataFrame(1, b"\x00\x00\x00\x00\x05ab"), trailers(1)], Code.INTERNAL, "middle of a message"),
        ([headers(1), DataFrame(1, b"\x00\x00"), trailers(1)], Code.INTERNAL, "middle of a message"),
        ([headers(1), DataFrame(1, b"\x01\x00\x00\x00\x00")], Code.INTERNAL, "compressed"),
        ([headers(1), DataFrame(1, message(bytes(101)))], Code.RESOURCE_EXHAUSTED, "limit is 100"),
        ([headers(1), WindowUpdateFrame(1, 2**31 - 1)], Code.INTERNAL, "window"),
        ([headers(1, [("a", "x" * 4000)] * 265)], Code.RESOURCE_EXHAUSTED, "header list"),
    ],
)
def test_answer_that_breaks_grpc_costs_only_its_stream(frames: list[Frame], code: Code, says: str) -> None:
    client = Client(message_limit_bytes=100)
    client.connection.credit(client.open().stream)
    other = client.open()
    for frame in frames:
        block = getattr(frame, "data", b"")
        if isinstance(frame, HeadersFrame) and len(block) > MAX_FRAME_BYTES:
            parts = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
            client.read_frames(HeadersFrame(1, parts[0]), *(ContinuationFrame(1, part) for part in parts[1:-1]))
            client.read_frames(ContinuationFrame(1, parts[-1], flags=["END_HEADERS"]))
        else:
            client.read_frames(frame)
    call = next(iter(client.calls.values()))
    assert call.stream.status is not None
    assert call.stream.status.code is code
    assert says in call.stream.status.message
    client.read_frames(headers(3), DataFrame(3, message(b"fine")), trailers(3))
    assert other.messages == [b"fine"]
    assert other.stream.status == CallStatus(Code.OK)


def test_frames_of_a_cancelled_stream_are_skipped_and_keep_the_header_table_in_step() -> None:
    client = Client()
    gone, other = client.open(), client.open()
    client.connection.cancel(gone.stream)
    encoder = hpack.Encoder()  # with a dynamic table: the second block refers to the first
    first = HeadersFrame(1, encoder.encode(RESPONSE), flags=["END_HEADERS"])
    second = HeadersFrame(3, encoder.encode(RESPONSE), flags=["END_HEADERS"])
    client.read_frames(first, DataFrame(1, message(b"late")), RstStreamFrame(1), WindowUpdateFrame(1, 5), second, trailers(3))
    assert gone.messages == []
    assert other.stream.status == CallStatus(Code.OK)
    assert [reset.stream_id for reset in client.sent_of(RstStreamFrame)] == [1]


def test_goaway_ends_the_streams_it_has_not_seen_and_drains() -> None:
    client = Client()
    seen, unseen = client.open(), client.open()
    client.read_frames(headers(1), GoAwayFrame(0, last_stream_id=1, additional_data=b"bye"))
    assert unseen.stream.status is not None
    assert (unseen.stream.status.code, unseen.stream.status.connection_lost) == (Code.UNAVAILABLE, True)
    assert "bye" in unseen.stream.status.message
    assert not client.connection.has_room
    client.read_frames(DataFrame(1, message(b"x")), trailers(1))
    assert seen.messages == [b"x"]
    assert seen.stream.status == CallStatus(Code.OK)


def test_used_up_stream_ids_drain_the_connection() -> None:
    client = Client()
    client.connection._streams._next_id = 2**31 - 1
    call = client.open()
    assert call.stream.id == 2**31 - 1
    assert client.connection.state is ConnectionState.DRAINING


def test_max_concurrent_streams_is_room() -> None:
    client = Client()
    client.read_frames(SettingsFrame(0, {SettingsFrame.MAX_CONCURRENT_STREAMS: 1}))
    assert client.connection.has_room
    client.open()
    assert not client.connection.has_room
    client.read_frames(headers(1), trailers(1))
    assert client.connection.has_room


def test_ping_and_settings_are_answered() -> None:
    client = Client()
    client.read_frames(PingFrame(0, b"abcdefgh"), PingFrame(0, b"12345678", flags=["ACK"]), SettingsFrame(0, {0x99: 1}))
    assert [(ping.opaque_data, "ACK" in ping.flags) for ping in client.sent_of(PingFrame)] == [(b"abcdefgh", True)]
    assert ["ACK" in frame.flags for frame in client.sent_of(SettingsFrame)] == [True]


# -- flow control --------------------------------------------------------------------------------------------


def data_of(stream_id: int, total_bytes: int) -> list[Frame]:
    """DATA frames that take exactly `total_bytes` of the windows."""
    return [DataFrame(stream_id, message(bytes(16_384 - 5))) for _ in range(total_bytes // 16_384)]


def test_credit_follows_what_was_read_and_is_complete() -> None:
    client = Client()
    client.open()
    client.read_frames(headers(1))
    for _ in range(8):
        client.read_frames(*data_of(1, WINDOW_BYTES // 4))
    credited = sum(frame.window_increment for frame in client.sent_of(WindowUpdateFrame) if frame.stream_id == 1)
    assert 2 * WINDOW_BYTES - WINDOW_BYTES // 2 < credited <= 2 * WINDOW_BYTES


def test_padding_is_credited_too() -> None:
    client = Client()
    call = client.open()
    client.read_frames(headers(1), DataFrame(1, message(b"x"), pad_length=200, flags=["PADDED"]))
    assert call.stream.uncredited == 6 + 1 + 200


def test_paused_stream_gets_no_credit_until_resumed() -> None:
    client = Client()
    call = client.open()
    call.stream.paused = True
    client.read_frames(headers(1), *data_of(1, WINDOW_BYTES))
    assert not client.sent_of(WindowUpdateFrame)
    call.stream.paused = False
    client.connection.credit(call.stream)
    client._collect_output()
    assert [frame.window_increment for frame in client.sent_of(WindowUpdateFrame)] == [WINDOW_BYTES]


def test_peer_that_overruns_a_window_loses_the_stream() -> None:
    client = Client()
    call = client.open()
    call.stream.paused = True
    client.read_frames(headers(1), *data_of(1, WINDOW_BYTES))
    assert call.stream.status is None
    client.read_frames(DataFrame(1, message(b"one too many")))
    assert call.stream.status is not None
    assert call.stream.status.code is Code.INTERNAL
    assert client.sent_of(RstStreamFrame)[0].error_code == ErrorCode.FLOW_CONTROL_ERROR


def test_connection_window_is_credited_also_for_streams_that_are_over() -> None:
    client = Client()
    gone = client.open()
    client.read_frames(headers(1))
    client.connection.cancel(gone.stream)
    frame = DataFrame(1, bytes(MAX_FRAME_BYTES)).serialize()
    for _ in range((1 << 29) // MAX_FRAME_BYTES):
        client.read(frame)
    assert [(frame.stream_id, frame.window_increment) for frame in client.sent_of(WindowUpdateFrame)] == [(0, 1 << 29)]


# -- requests ------------------------------------------------------------------------------------------------


def body_sent(client: Client, stream_id: int = 1) -> bytes:
    return b"".join(frame.data for frame in client.sent_of(DataFrame) if frame.stream_id == stream_id)


def test_request_is_headers_and_one_data_frame_that_ends_the_stream() -> None:
    client = Client()
    client.open(b"hello", timeout_s=1.5, metadata=[("x-a", "1")])
    head, data = client.sent
    assert client.decoder.decode(head.data) == [
        (":path", "/s/m"),
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "worker:1"),
        ("content-type", "application/grpc"),
        ("user-agent", "snakepit-gateway"),
        ("te", "trailers"),
        ("grpc-accept-encoding", "identity"),
        ("grpc-timeout", "1500000u"),
        ("x-a", "1"),
    ]
    assert data.data == message(b"hello")
    assert "END_STREAM" in data.flags


def test_header_block_over_the_frame_limit_is_continued() -> None:
    client = Client()
    client.open(metadata=[("long", "x" * 40_000)])
    head, *continuations = [frame for frame in client.sent if isinstance(frame, HeadersFrame | ContinuationFrame)]
    assert [len(frame.data) <= 16_384 for frame in (head, *continuations)] == [True] * 3
    assert "END_HEADERS" not in head.flags
    assert "END_HEADERS" in continuations[-1].flags
    assert ("long", "x" * 40_000) in client.decoder.decode(head.data + b"".join(frame.data for frame in continuations))


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(1, 60_000)), max_size=12), st.integers(0, 200_000))
def test_request_stays_within_the_peers_windows_and_arrives_whole(updates: list[tuple[int, int]], size: int) -> None:
    client = Client()
    request = bytes(i % 251 for i in range(size))
    client.open(request)
    windows = [65_535, 65_535]
    for stream_id, increment in updates:
        client.read_frames(WindowUpdateFrame(stream_id, increment))
        windows[stream_id] += increment
        assert len(body_sent(client)) == min(*windows, size + 5)
    client.read_frames(WindowUpdateFrame(0, 300_000), WindowUpdateFrame(1, 300_000))
    assert body_sent(client) == message(request)
    assert all(len(frame.data) <= 16_384 for frame in client.sent_of(DataFrame))
    assert ["END_STREAM" in frame.flags for frame in client.sent_of(DataFrame)][-1]


def test_settings_change_the_windows_of_open_streams_also_below_zero() -> None:
    client = Client()
    client.read_frames(WindowUpdateFrame(0, 1 << 20))
    client.open(bytes(100_000))
    assert len(body_sent(client)) == 65_535
    client.read_frames(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    client.read_frames(WindowUpdateFrame(1, 65_535))
    assert len(body_sent(client)) == 65_535
    client.read_frames(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 10, SettingsFrame.MAX_FRAME_SIZE: 1 << 20}))
    assert len(body_sent(client)) == 65_545
    client.read_frames(WindowUpdateFrame(1, 100_000))
    assert len(body_sent(client)) == 100_005
    assert len(client.sent_of(DataFrame)[-1].data) == 100_005 - 65_545


def test_answer_before_the_request_is_sent_stops_the_sending() -> None:
    client = Client()
    call = client.open(bytes(100_000))
    client.read_frames(trailers(1, (":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "3")))
    assert call.stream.status is not None
    assert call.stream.status.code is Code.INVALID_ARGUMENT
    assert [reset.error_code for reset in client.sent_of(RstStreamFrame)] == [ErrorCode.CANCEL]
    client.read_frames(WindowUpdateFrame(0, 1 << 20))
    assert len(body_sent(client)) == 65_535
