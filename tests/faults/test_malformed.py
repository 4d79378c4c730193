"""What no client library would send: HTTP, WebSocket frames, JSON and protobuf that are broken, and texts that try to become headers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.any_pb2 import Any as ProtobufAny

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.e2e.harness import PATIENCE_S, Served, any_of, bridge, read_sse
from tests.e2e.socketclient import joined
from tests.faults.containment import contained
from tests.faults.rawsocket import client_frame, close_code, raw_socket

ECHO = "/v1/tools/echo/stream"
REPLY = "/v1/tools/reply/call"
# Line breaks of every kind, what ends a C string, what ends an SSE event, and what would be a header.
SNEAKY = ("a\r\nX-Evil: 1\r\n\r\nbody", "a\nevent: end\ndata: {}\n\n", "a\0b", "a\u2028b\u2029c\u0085d", "\r", "data: x", "😀\ufeff")


async def answer_to(gateway: Served, request: bytes) -> bytes:
    """Return all that a gateway answers to these bytes, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request)
    try:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                return await reader.read()
    finally:
        writer.transport.abort()
    return b""


def statuses(answer: bytes) -> list[int]:
    return [int(line.split()[1]) for line in answer.splitlines() if line.startswith(b"HTTP/1.1 ")]


HEAD = b"Host: localhost\r\nConnection: close\r\n"
POST = b"POST /v1/tools/reply/call HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\n"
BROKEN_HTTP = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "unknown version": b"GET /livez HTTP/9.9\r\n\r\n",
    "unknown method": b"GRAB /livez HTTP/1.1\r\n" + HEAD + b"\r\n",
    "space in a name": b"GET /livez HTTP/1.1\r\nBad Name: x\r\n" + HEAD + b"\r\n",
    "NUL in a value": b"GET /livez HTTP/1.1\r\nX: a\0b\r\n" + HEAD + b"\r\n",
    "bare CR": b"GET /livez HTTP/1.1\r\nX: a\rb\r\n" + HEAD + b"\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and then something": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "length below zero": POST + b"Content-Length: -1\r\n\r\n",
    "length that is no number": POST + b"Content-Length: 1e3\r\n\r\n{}",
    "endless length": POST + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n{}",
    "chunk of wrong size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "chunk that is too large": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
}


@pytest.mark.parametrize("kind", BROKEN_HTTP)
async def test_broken_http_is_a_4xx_and_a_closed_connection(gateway: Served, kind: str) -> None:
    answer = await answer_to(gateway, BROKEN_HTTP[kind])
    assert [400 <= status < 500 for status in statuses(answer)] == [True], answer
    assert b"Traceback" not in answer


async def test_a_request_smuggled_in_a_body_is_never_answered(gateway: Served) -> None:
    inner = b"GET /v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    whole = b"POST /v1/tools/reply/call HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    tricks = (
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding : chunked",
        b" Transfer-Encoding: chunked",
        b"Transfer-Encoding:\x0bchunked",
    )
    for trick in tricks:
        answer = await answer_to(gateway, whole + trick + b"\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner + b"x")
        assert len(statuses(answer)) <= 2, answer
        assert b'"runs"' not in answer, trick


DEEP = 100_000
# Body -> what its answer says. 10,000 digits and 1e400 are no numbers that a double or anything else here could hold.
BROKEN_JSON = {
    b"": (200, None),
    b"{": (400, "invalid-body"),
    b"[]": (400, "invalid-body"),
    b"null": (400, "invalid-body"),
    b'{"value":NaN}': (400, "invalid-body"),
    b'{"value":1e400}': (400, "invalid-body"),
    b'{"value":' + b"9" * 10_000 + b"}": (400, "invalid-body"),
    b'{"value":"\\ud800"}': (400, "invalid-body"),
    b'{"value":"\xff"}': (400, "invalid-body"),
    b'\xef\xbb\xbf{"value":1}': (400, "invalid-body"),
    b"\0": (400, "invalid-body"),
    b'{"value":' * DEEP + b"1" + b"}" * DEEP: (400, "invalid-body"),
    b'{"value":' + b"[" * DEEP + b"]" * DEEP + b"}": (400, "invalid-body"),
    b'{"value":' + b"[" * 1000 + b"]" * 1000 + b"}": (400, "invalid-body"),
    b'{"value":1} x': (400, "invalid-body"),
    b'{"value":1,"value":2}': (200, 2),
    b'{"value":"a\\u0000b"}': (200, "a\0b"),
    b'{"value":-0.0}': (200, 0.0),
    b'{"value":123456789012345678901234567890}': (200, 1.2345678901234568e29),
    b'{"value":1e-400}': (200, 0.0),
    b'{"\\u0000":1}': (422, "invalid-arguments"),
}


@pytest.mark.parametrize("body", BROKEN_JSON, ids=lambda body: repr(body[:24]))
async def test_json_that_is_broken_or_odd_is_a_problem_or_a_value(gateway: Served, body: bytes) -> None:
    status, said = BROKEN_JSON[body]
    async with gateway.http() as client:
        answer = await client.post(REPLY, content=body, headers={"Content-Type": "application/json"})
        streamed = await client.post(ECHO, content=body, headers={"Content-Type": "application/json", "Accept": "application/json"})
    assert (answer.status_code, streamed.status_code) == (status, status), answer.text
    if status == 200:
        assert (answer.json()["result"], streamed.json()["chunks"]) == (said, [said])
    else:
        assert answer.json()["type"] == streamed.json()["type"] == f"/problems/{said}"


QUERIES = {
    "value=%ff": (400, "invalid-option"),
    "value=%ed%a0%80": (400, "invalid-option"),
    "value=%00": (200, "\0"),
    "value=" + "9" * 4000: (200, int("9" * 4000)),
    "value=" + "9" * 5000: (200, "9" * 5000),
    "value=1e400": (200, "1e400"),
    "value=NaN": (200, "NaN"),
    "value=" + "[" * 1000 + "]" * 1000: (400, "invalid-body"),
    "&".join(["value=1"] * 2000): (400, "invalid-option"),
    "value=1&value=": (200, ["1", ""]),
    "va%0d%0alue=1": (422, "invalid-arguments"),
    # Metadata is a map in a message, no header.
    "value=x&_meta.note=a%0d%0aX-Evil:1": (200, "x"),
    "value=x&_session=a%0d%0ab": (400, "invalid-session"),
    "value=x&_pool=%00": (404, "pool-not-found"),
    "value=x&_from=a%0ab": (400, "invalid-option"),
    "value=x&_timeout_ms=1e3": (400, "invalid-option"),
    "value=x&_timeout_ms=" + "9" * 5000: (400, "invalid-option"),
    "value=x&_on_disconnect=grace:" + "9" * 5000 + "s": (400, "invalid-option"),
}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query[:32])
async def test_a_query_that_is_broken_or_odd_is_a_problem_or_a_value(gateway: Served, query: str) -> None:
    status, said = QUERIES[query]
    async with gateway.http() as client:
        answer = await client.get(f"{ECHO}?{query}", headers={"Accept": "application/json"})
    assert answer.status_code == status, answer.text
    if status == 200:
        assert json.loads(answer.text, parse_int=str if isinstance(said, int) else int)["chunks"] == [
            str(said) if isinstance(said, int) else said
        ]
    else:
        assert answer.json()["type"] == f"/problems/{said}"


TEXT, CONTINUATION, BINARY, CLOSE, PING = 1, 0, 2, 8, 9
FRAMES = {
    "reserved opcode": (client_frame(b"x", 3), 1002),
    "reserved control opcode": (client_frame(b"x", 11), 1002),
    "reserved bit": (client_frame(b"{}", reserved=4), 1002),
    "unmasked": (client_frame(b'{"type":"ping"}', masked=False), 1002),
    "fragmented ping": (client_frame(b"x", PING, fin=False), 1002),
    "long ping": (client_frame(b"x" * 126, PING), 1002),
    "continuation of nothing": (client_frame(b"x", CONTINUATION), 1002),
    "text inside a message": (client_frame(b"{", fin=False) + client_frame(b"{}"), 1002),
    "length with its highest bit": (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1009),
    "length over the limit": (b"\x81\xff" + struct.pack(">Q", 1 << 40) + bytes(4), 1009),
    "fragments over the limit": (client_frame(b" " * 600_000, fin=False) + client_frame(b" " * 600_000, CONTINUATION), 1009),
    "not UTF-8": (client_frame(b"\xff\xfe"), 1007),
    "cut UTF-8": (client_frame(b"\xe2\x82"), 1007),
    "surrogates in UTF-8": (client_frame(b"\xed\xa0\x80"), 1007),
    "binary": (client_frame(b"{}", BINARY), 4400),
    "close of one byte": (client_frame(b"\x03", CLOSE), 1002),
    "close code below 1000": (client_frame(struct.pack(">H", 999), CLOSE), 1002),
    "close code of nobody": (client_frame(struct.pack(">H", 1005), CLOSE), 1002),
    "close reason that is not UTF-8": (client_frame(struct.pack(">H", 1000) + b"\xff", CLOSE), 1007),
    "empty": (client_frame(b""), 4400),
    "NUL": (client_frame(b"\0"), 4400),
    "deep": (client_frame(b'{"type":' + b"[" * 1000 + b"]" * 1000 + b"}"), 4400),
    "deeper": (client_frame(b"[" * 100_000), 4400),
    "a number": (client_frame(b"1e400"), 4400),
    "lone surrogate": (client_frame(b'{"type":"ping","x":"\\ud800"}'), 4400),
    "type of a wrong kind": (client_frame(b'{"type":{"a":1}}'), 4400),
    "unknown type with line breaks": (client_frame(b'{"type":"a\\r\\nb\\u0000"}'), 4400),
    "huge id": (client_frame(b'{"type":"cancel","id":"' + b"x" * 10_000 + b'"}'), 4400),
    "credit without end": (client_frame(b'{"type":"credit","id":"a","n":123456789012345678901234567890}'), 4400),
    "credit that is no number": (client_frame(b'{"type":"credit","id":"a","n":true}'), 4400),
}


@pytest.mark.parametrize("kind", FRAMES)
async def test_a_broken_frame_closes_its_socket_with_the_code_for_it(gateway: Served, kind: str) -> None:
    frame, code = FRAMES[kind]
    async with raw_socket(gateway) as (reader, writer):
        writer.write(frame)
        assert await close_code(reader) == code


NESTED = "[" * 990 + "1" + "]" * 990
# Payloads of `subscribe`, with NESTED where they say so: an `error` frame under the id, and a socket that goes on.
PAYLOADS = {
    "deep arguments": ('{"tool":"echo","args":{"value":NESTED}}', "invalid-body"),
    "deep tool": ('{"tool":NESTED}', "invalid-option"),
    "deep option": ('{"tool":"echo","args":{},"timeout_ms":NESTED}', "invalid-option"),
    "deep session": ('{"tool":"echo","args":{},"session":NESTED}', "invalid-option"),
    "deep credit": ('{"tool":"echo","args":{},"credit":NESTED}', "invalid-option"),
    "deep metadata": ('{"tool":"echo","args":{},"meta.note":NESTED}', "invalid-option"),
    "session with a line break": ('{"tool":"echo","args":{},"session":"a\\r\\nb"}', "invalid-session"),
    "tool with a line break": ('{"tool":"a\\r\\nb\\u0000"}', "tool-not-found"),
    "huge timeout": ('{"tool":"echo","args":{},"timeout_ms":1000000000000000}', "invalid-option"),
}


@pytest.mark.parametrize("kind", PAYLOADS)
async def test_a_broken_subscribe_is_an_error_and_the_socket_goes_on(gateway: Served, kind: str) -> None:
    payload, problem = PAYLOADS[kind]
    async with joined(gateway) as socket:
        await socket.socket.send('{"type":"subscribe","id":"a","payload":' + payload.replace("NESTED", NESTED) + "}")
        error = await socket.hear()
        assert (error["type"], error["id"], error["payload"]["type"]) == ("error", "a", f"/problems/{problem}")
        await socket.say("subscribe", id="a", payload={"tool": "echo", "args": {"value": 1}})
        assert (await socket.hear_until("complete", "error"))["type"] == "complete"


@pytest.mark.parametrize("member", ["run", "last_event_id", "from", "role", "overflow", "credit"])
async def test_a_deep_member_of_attach_is_an_error_and_the_socket_goes_on(gateway: Served, member: str) -> None:
    run = "" if member in ("run", "last_event_id") else '"run":"r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X",'
    async with joined(gateway) as socket:
        await socket.socket.send('{"type":"attach","id":"a","payload":{' + run + f'"{member}":{NESTED}' + "}}")
        error = await socket.hear()
        assert (error["type"], error["payload"]["type"]) == ("error", "/problems/invalid-option")
        await socket.say("ping")
        assert (await socket.hear())["type"] == "pong"


@pytest.mark.parametrize("text", SNEAKY, ids=ascii)
async def test_no_text_becomes_a_header_or_an_event(gateway: Served, text: str) -> None:
    """Through a tool's value, its metadata, its failure, a session id, an event id, an idempotency key, a traceparent."""
    async with gateway.http() as client:
        async with client.stream("POST", ECHO, json={"value": text}) as response:
            story = await read_sse(response)
        assert story.chunks == [text]
        async with client.stream("GET", f"/v1/tools/annotate/stream?text={quote(text)}") as response:
            story = await read_sse(response)
        assert story.end is not None
        assert (len(story.chunks), story.end["metadata"]["note"]) == (2, text)
        for path, body in (("fail/stream", {"text": text}), ("fail_once/call", {"text": text})):
            answer = await client.post(f"/v1/tools/{path}", json=body)
            assert "x-evil" not in answer.headers
            assert (answer.status_code, answer.json()["detail"]) == (409 if "stream" in path else 400, text)
        async with client.stream("POST", "/v1/tools/fail/stream", json={"text": text, "after": 1}) as response:
            story = await read_sse(response)
        assert story.end is not None
        assert (story.chunks, story.end["error"]["detail"]) == ([{"n": 1}], text)
        for path in (
            f"/v1/tools/{quote(text, safe='')}/stream",
            f"/v1/runs/{quote(text, safe='')}",
            f"/v1/sessions/{quote(text, safe='')}",
        ):
            answer = await client.get(path)
            assert 400 <= answer.status_code < 500, (path, answer.text)
            assert "x-evil" not in answer.headers
    for name in (b"Last-Event-ID", b"Idempotency-Key", b"traceparent", b"Accept", b"Prefer", b"Grpc-Timeout"):
        value = text.encode().replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
        raw = await answer_to(
            gateway, b"POST " + ECHO.encode() + b" HTTP/1.1\r\n" + HEAD + name + b": " + value + b"\r\nContent-Length: 0\r\n\r\n"
        )
        (status,) = statuses(raw)
        assert status < 500, raw
        assert b"\nx-evil" not in raw.lower()


# What a gRPC client can send in a parameter -> the status, or None for a value that passes.
PARAMETERS = {
    "not JSON": (ProtobufAny(value=b"{"), grpc.StatusCode.INVALID_ARGUMENT),
    "lone surrogate": (ProtobufAny(value=b'"\\ud800"'), None),
    "deep": (ProtobufAny(value=b"[" * 100_000 + b"]" * 100_000), grpc.StatusCode.INVALID_ARGUMENT),
    "rather deep": (ProtobufAny(value=b"[" * 980 + b"]" * 980), grpc.StatusCode.INVALID_ARGUMENT),
    "many digits": (ProtobufAny(value=b"9" * 10_000), grpc.StatusCode.INVALID_ARGUMENT),
    "infinite": (ProtobufAny(value=b"1e400"), None),
    "NaN": (ProtobufAny(value=b"NaN"), grpc.StatusCode.INVALID_ARGUMENT),
    "not UTF-8": (ProtobufAny(value=b'"\xff"'), grpc.StatusCode.INVALID_ARGUMENT),
    "type of nobody": (ProtobufAny(type_url="type.googleapis.com/nobody", value=b"\x08\x01"), grpc.StatusCode.INVALID_ARGUMENT),
    "broken wrapper": (
        ProtobufAny(type_url="type.googleapis.com/google.protobuf.Struct", value=b"\xff\xff"),
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
}


@pytest.mark.parametrize("kind", PARAMETERS)
async def test_a_broken_parameter_is_an_invalid_argument(gateway: Served, kind: str) -> None:
    value, code = PARAMETERS[kind]
    request = pb.ExecuteToolRequest(session_id="malformed", tool_name="echo", stream=True)
    request.parameters["value"].CopyFrom(value)
    async with bridge(gateway) as stub:
        await stub.InitializeSession(pb.InitializeSessionRequest(session_id="malformed"))
        call = stub.ExecuteStreamingTool(request)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        assert await call.code() is (code or grpc.StatusCode.OK), await call.details()
        # And the next call on the same connection is as any other.
        request.parameters["value"].CopyFrom(any_of(1))
        assert [chunk async for chunk in stub.ExecuteStreamingTool(request)]


async def status_of(channel: grpc.aio.Channel, method: str, data: bytes) -> grpc.StatusCode:
    """Send these bytes as a request; a function of its own, since a call that is still referred to keeps its connection."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/snakepit.bridge.BridgeService/{method}")(data)
    return caught.value.code()


async def test_bytes_that_are_no_protobuf_are_an_invalid_argument(gateway: Served) -> None:
    async with contained(gateway), grpc.aio.insecure_channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        for method in ("Ping", "InitializeSession", "ExecuteTool", "RegisterTools"):
            assert await status_of(channel, method, b"\x0a\xff\xff\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_http2_harm_nobody(gateway: Served) -> None:
    async with contained(gateway):
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.grpc_port)
            writer.write(garbage)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.transport.abort()
