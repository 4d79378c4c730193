"""A worker that lies: it describes itself well, and does to each call what the called tool's name says.

    python -m tests.faults.liar PORT [DESCRIPTION]

Built from bare frames (tests/transport/conftest.py), since no gRPC library would send these. With the name of a
DESCRIPTION it lies about itself instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import AsyncIterator, Callable

from hpack import Decoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest, ToolChunk
from gateway.rpc.worker_pb2 import AwaitStopResponse, ToolChunks, ToolDescription, WorkerDescription
from tests.transport.conftest import PREFACE, FakeConnection, grpc_message

Lie = Callable[[FakeConnection, int], None]


def chunks(*payloads: bytes) -> bytes:
    return grpc_message(ToolChunks(payloads=payloads).SerializeToString())


def raw(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind)[:3] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def truth(connection: FakeConnection, stream: int) -> None:
    connection.send(connection.headers(stream), DataFrame(stream, chunks(b"1", b"2")), connection.trailers(stream))


def saying(*fields: tuple[str, str]) -> Lie:
    """Answer one chunk, then these trailers."""
    return lambda connection, stream: connection.send(
        connection.headers(stream), DataFrame(stream, chunks(b"1")), connection.trailers(stream, *fields)
    )


def sending(make: Callable[[int], list[Frame]]) -> Lie:
    """Answer headers and one chunk, then these frames."""
    return lambda connection, stream: connection.send(connection.headers(stream), DataFrame(stream, chunks(b"1")), *make(stream))


def writing(make: Callable[[int], bytes]) -> Lie:
    """Answer headers and one chunk, then these bytes."""

    def lie(connection: FakeConnection, stream: int) -> None:
        connection.send(connection.headers(stream), DataFrame(stream, chunks(b"1")))
        connection.writer.write(make(stream))

    return lie


def answering(*fields: tuple[str, str]) -> Lie:
    """Answer with headers that aren't gRPC's."""
    return lambda connection, stream: connection.send(connection.headers(stream, fields, end_stream=True))


def endless_header(connection: FakeConnection, stream: int) -> None:
    head = HeadersFrame(stream, b"\x40\x01a\x7f\xff\xff\x7f")
    connection.writer.write(head.serialize() + ContinuationFrame(stream, b"x" * 16_000).serialize() * 500)


def odd_final(connection: FakeConnection, stream: int) -> None:
    """A final, then more chunks and another final: Snakepit allows that."""
    final = ToolChunk(chunk_id="?\r\n\0", data=b"1", is_final=True, metadata={"a\r\nb": "c\0d"})
    batch = ToolChunks(payloads=[b"0"], chunks=[final, ToolChunk(data=b"2"), final])
    connection.send(connection.headers(stream), DataFrame(stream, grpc_message(batch.SerializeToString())), connection.trailers(stream))


def in_crumbs(connection: FakeConnection, stream: int) -> None:
    data = (
        connection.headers(stream).serialize() + DataFrame(stream, chunks(b"1", b"2")).serialize() + connection.trailers(stream).serialize()
    )
    for place in range(len(data)):
        asyncio.get_running_loop().call_later(place / 1000, connection.writer.write, data[place : place + 1])


LIES: dict[str, Lie] = {
    "truth": truth,
    "in_crumbs": in_crumbs,
    "odd_final": odd_final,
    # a message
    "endless_chunk": writing(lambda stream: DataFrame(stream, b"\0\xff\xff\xff\xff" + b"x" * 1000).serialize()),
    "compressed": writing(lambda stream: DataFrame(stream, b"\1\0\0\0\3abc").serialize()),
    "flag_of_nobody": writing(lambda stream: DataFrame(stream, b"\7\0\0\0\3abc").serialize()),
    "garbage_message": sending(lambda stream: [DataFrame(stream, grpc_message(b"\xff" * 100))]),
    "half_a_message": sending(lambda stream: [DataFrame(stream, b"\0\0\0\1\0half", flags=["END_STREAM"])]),
    "no_trailers": sending(lambda stream: [DataFrame(stream, b"", flags=["END_STREAM"])]),
    # a status
    "huge_status": saying(("grpc-status", "13"), ("grpc-message", "x" * 15_000)),
    "giant_header": writing(lambda stream: raw(1, 5, stream, bytes(2_000_000))),
    "evil_status": saying(("grpc-status", "9"), ("grpc-message", "a%0D%0AX-Evil: 1%0D%0A%00%E2%80%A8%FF%zz")),
    "no_status": saying(("grpc-message", "nothing")),
    "unknown_status": saying(("grpc-status", "77"), ("grpc-message", "what")),
    "status_no_number": saying(("grpc-status", "９"), ("grpc-message", "what")),
    "broken_details": saying(("grpc-status", "3"), ("grpc-message", "told"), ("grpc-status-details-bin", "%%%")),
    "not_grpc": answering((":status", "200"), ("content-type", "text/html")),
    "proxy_error": answering((":status", "502"), ("content-type", "text/html")),
    "no_http_status": answering(("content-type", "application/grpc")),
    # frames
    "endless_header": endless_header,
    "wrong_stream": sending(lambda stream: [DataFrame(stream + 1000, b"x")]),
    "even_stream": sending(lambda stream: [HeadersFrame(2, b"\x88", flags=["END_HEADERS"])]),
    "data_on_zero": writing(lambda stream: raw(0, 0, 0, b"x")),
    "huge_frame": writing(lambda stream: raw(0, 0, stream, b"")[:0] + b"\xff\xff\xff\0\0" + struct.pack(">I", stream)),
    "garbage": writing(lambda stream: b"\xff" * 4000),
    "bad_hpack": writing(lambda stream: raw(1, 4, stream, b"\xff\xff\xff\xff\xff\xff")),
    "push": writing(lambda stream: raw(5, 4, stream, struct.pack(">I", 2) + b"\x88")),
    "window_overflow": writing(lambda stream: WindowUpdateFrame(0, 2**31 - 1).serialize() * 3),
    "window_zero": writing(lambda stream: raw(8, 0, stream, bytes(4))),
    "over_the_window": writing(lambda stream: DataFrame(stream, b"\0\x05\0\0\0" + b"x" * 16_000).serialize() * 400),
    "reset": sending(lambda stream: [RstStreamFrame(stream, error_code=2)]),
    "reset_of_nobody": sending(lambda stream: [RstStreamFrame(stream, error_code=0xDEADBEEF)]),
    "reset_storm": writing(lambda stream: RstStreamFrame(stream, error_code=7).serialize() * 5000),
    "goaway_storm": writing(lambda stream: raw(7, 0, 0, struct.pack(">II", 0, 11) + b"a\r\nX-Evil: 1\0") * 5000),
    "ping_flood": writing(lambda stream: PingFrame(0, b"12345678").serialize() * 50_000),
    "settings_flood": writing(lambda stream: SettingsFrame(0, settings={4: 65_535}).serialize() * 50_000),
    "settings_no_streams": writing(lambda stream: SettingsFrame(0, settings={3: 0}).serialize() + RstStreamFrame(stream, 8).serialize()),
    "vanish": lambda connection, stream: connection.writer.transport.abort(),
    "unknown_frames": lambda connection, stream: (
        connection.writer.write(raw(0xBE, 0xFF, stream, b"?" * 100) * 100),
        truth(connection, stream),
    )[1],
}

OBJECT = {"type": "object"}
# Eight levels of thirty references each: written out, 30 to the power of 8.
_LEVELS = {f"d{n}": {"properties": {str(k): {"$ref": f"#/$defs/d{n - 1}"} for k in range(30)}} for n in range(1, 9)}
BOMB = {"$defs": {"d0": {}, **_LEVELS}, "properties": {"x": {"$ref": "#/$defs/d8"}}}
# What a worker can say of its tools that no gateway should choke on: name -> (tool names, schema as text).
DESCRIPTIONS: dict[str, tuple[list[str], str]] = {
    "many": ([f"tool_{number}" for number in range(1_500)], json.dumps(OBJECT)),
    "names": (["fine_names", "", "a\r\nX-Evil: 1", "a\0b", "a/b", "a?b", "\u2028", "x" * 100_000, "fine_names"], json.dumps(OBJECT)),
    "no_schema": (["fine_no_schema"], "]["),
    "list_schema": (["fine_list_schema"], "[]"),
    "deep_schema": (["fine_deep_schema"], '{"properties":{"x":' * 900 + "{}" + "}}" * 900),
    "loop": (
        ["fine_loop"],
        json.dumps({**OBJECT, "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}, "properties": {"x": {"$ref": "#/$defs/A"}}}),
    ),
    "bomb": (["fine_bomb"], json.dumps({**OBJECT, **BOMB})),
    "regex": (["fine_regex"], json.dumps({**OBJECT, "properties": {"x": {"type": "string", "pattern": "^(a|aa)+(?=b)\\1$"}}})),
    "bad_regex": (["fine_bad_regex"], json.dumps({**OBJECT, "properties": {"x": {"pattern": "("}}})),
    "wrong_shape": (["fine_wrong_shape"], json.dumps({"type": 5, "properties": 7, "$defs": 3, "required": "x"})),
    "odd_property": (["fine_odd_property"], json.dumps({**OBJECT, "properties": {"x": True}})),
    "file": (["fine_file"], json.dumps({"$ref": "file:///etc/passwd"})),
    "http": (["fine_http"], json.dumps({"$ref": "http://127.0.0.1:9/schema"})),
}


def description(kind: str | None) -> bytes:
    names, schema = DESCRIPTIONS[kind] if kind is not None else (list(LIES), json.dumps(OBJECT))
    tools = [ToolDescription(name=name, supports_streaming=True, parameters_schema=schema) for name in names]
    return WorkerDescription(worker_id="liar\r\n", concurrency=100, tools=tools, batches=True).SerializeToString()


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """Yield what the gateway sends, up to the end of the connection."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readexactly(len(PREFACE))
        while True:
            frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
            frame.parse_body(memoryview(await reader.readexactly(length)))
            yield frame


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, described: bytes) -> None:
    """Answer the requests of one connection as they are complete."""
    connection = FakeConnection(reader, writer)
    connection.greet()
    decoder, paths, requests = Decoder(), dict[int, str](), dict[int, bytes]()
    async for frame in frames(reader):
        if isinstance(frame, HeadersFrame):
            paths[frame.stream_id] = str(dict(decoder.decode(frame.data))[":path"])
        elif isinstance(frame, DataFrame):
            requests[frame.stream_id] = requests.get(frame.stream_id, b"") + frame.data
            if "END_STREAM" in frame.flags:
                respond(connection, frame.stream_id, paths[frame.stream_id], requests.pop(frame.stream_id), described)
    writer.close()


def respond(connection: FakeConnection, stream: int, path: str, request: bytes, described: bytes) -> None:
    if path.endswith("/Describe"):
        connection.answer(stream, described)
    elif path.endswith("/AwaitStop"):
        connection.answer(stream, AwaitStopResponse(stopped=True).SerializeToString())
    else:
        LIES.get(ExecuteToolRequest.FromString(request[5:]).tool_name, truth)(connection, stream)


async def main(port: int, kind: str | None) -> None:
    described = description(kind)
    async with await asyncio.start_server(lambda reader, writer: serve(reader, writer, described), "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
