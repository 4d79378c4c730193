"""Host tools run within bounds, whatever they do; both encodings of arguments; what their answers say."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.any_pb2 import Any as PackedAny

from gateway.codec.values import JSON_TYPE_URL
from gateway.hosttools.toolbox import Toolbox
from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.conftest import until, within

SELF = "box_of_host_tools"
RELEASE = threading.Event()
STARTED: list[str] = []
STOPPED: list[str] = []


def echo(**values: Any) -> Any:
    return {name: f"{type(value).__name__} {value!r}" for name, value in values.items()}


def add(a: int, b: float = 0.5) -> float:
    return a + b


def gives(what: str) -> Any:
    return {
        "dict": {"a": [1, None]},
        "none": None,
        "text": "é",
        "bytes": b"\x80",
        "large": 2**70,
        "nan": float("nan"),
        "object": object(),
        "deep": [[[]]],
    }[what]


def fails(how: str) -> None:
    raise {"value": ValueError("boom"), "exit": SystemExit(2), "long": KeyError("x" * 10_000), "surrogate": OSError("\ud800")}[how]


async def async_fails() -> None:
    raise SystemExit(3)


def blocks() -> str:
    STARTED.append("blocks")
    RELEASE.wait(20)
    STOPPED.append("blocks")
    return "done"


async def waits() -> None:
    STARTED.append("waits")
    try:
        await asyncio.Event().wait()
    finally:
        STOPPED.append("waits")


async def stubborn() -> str:
    STARTED.append("stubborn")
    while not RELEASE.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            STOPPED.append("refused")
    return "at last"


async def thread_id() -> int:
    return threading.get_ident()


def thread_id_sync() -> int:
    return threading.get_ident()


TARGETS = [
    f"{SELF}:{name}"
    for name in ("echo", "add", "gives", "fails", "async_fails", "blocks", "waits", "stubborn", "thread_id", "thread_id_sync")
]


@pytest.fixture(autouse=True)
async def box(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Toolbox]:
    monkeypatch.setitem(sys.modules, SELF, sys.modules[__name__])
    RELEASE.clear()
    STARTED.clear()
    STOPPED.clear()
    box = Toolbox(TARGETS, timeout_s=10.0, at_once=2)
    yield box
    RELEASE.set()
    await box.aclose()


def packed(value: Any, url: str = JSON_TYPE_URL) -> PackedAny:
    return PackedAny(type_url=url, value=value if isinstance(value, bytes) else orjson.dumps(value))


async def call(box: Toolbox, name: str, **parameters: Any) -> pb.ExecuteElixirToolResponse:
    return await box.execute("s", name, {key: v if isinstance(v, PackedAny) else packed(v) for key, v in parameters.items()})


async def test_both_encodings_of_arguments_are_read(box: Toolbox) -> None:
    text, number, struct = PackedAny(), PackedAny(), PackedAny()
    text.Pack(wrappers_pb2.StringValue(value="123456789"))
    number.Pack(wrappers_pb2.Int64Value(value=7))
    struct.Pack(struct_pb2.Struct(fields={"a": struct_pb2.Value(bool_value=True)}))
    as_value = packed(b"1.5", "type.googleapis.com/google.protobuf.Value")  # as Snakepit's Python side sends numbers
    answer = await call(box, "echo", text=text, number=number, struct=struct, value=as_value, json="x", elsewhere=packed(b"[1]", "x/y"))
    assert answer.success
    assert orjson.loads(answer.result.value) == {
        "text": "str '123456789'",
        "number": "int 7",
        "struct": "dict {'a': True}",
        "value": "float 1.5",
        "json": "str 'x'",
        "elsewhere": "list [1]",
    }


async def test_arguments_are_checked_against_the_signature(box: Toolbox) -> None:
    assert orjson.loads((await call(box, "add", a=1)).result.value) == 1.5
    for parameters, words in (
        ({"a": "many"}, "/a: "),
        ({}, "/a: Field required"),
        ({"a": 1, "c": 2}, "/c: Extra inputs"),
        ({"a": packed(b"\xff\xfe")}, "/a: neither JSON nor a packed wrapper"),
    ):
        answer = await call(box, "add", **parameters)
        assert (answer.success, words in answer.error_message) == (False, True), answer.error_message
        assert answer.error_message.startswith("add does not take these arguments: ")


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("dict", b'{"a":[1,null]}'),
        ("none", b"null"),
        ("text", '"é"'.encode()),
        ("bytes", b'{"$bytes":"gA=="}'),
        ("large", b"1180591620717411303424"),
        ("nan", b"null"),
    ],
)
async def test_a_result_is_json_under_the_url_that_snakepit_reads(box: Toolbox, what: str, data: bytes) -> None:
    answer = await call(box, "gives", what=what)
    assert (answer.success, answer.result.type_url, answer.result.value) == (True, JSON_TYPE_URL, data)


async def test_a_result_without_a_json_form_is_a_failure(box: Toolbox) -> None:
    answer = await call(box, "gives", what="object")
    assert not answer.success
    assert answer.error_message.startswith("TypeError: the result has no JSON form")


@pytest.mark.parametrize(("how", "text"), [("value", "ValueError: boom"), ("exit", "SystemExit: 2"), ("surrogate", "OSError: ?")])
async def test_an_exception_is_a_failure_with_its_type_and_message(box: Toolbox, how: str, text: str) -> None:
    answer = await call(box, "fails", how=how)
    assert (answer.success, answer.error_message) == (False, text)
    answer = await call(box, "async_fails")
    assert (answer.success, answer.error_message) == (False, "SystemExit: 3")


async def test_a_long_message_is_cut(box: Toolbox) -> None:
    assert len((await call(box, "fails", how="long")).error_message) == 4001


async def test_an_unknown_tool_is_said_in_snakepits_words(box: Toolbox) -> None:
    answer = await call(box, "nobody")
    assert (answer.success, answer.error_message) == (False, "Tool nobody is not an Elixir tool")


async def test_sync_functions_leave_the_event_loop_alone_and_async_ones_run_on_it(box: Toolbox) -> None:
    ours = threading.get_ident()
    assert orjson.loads((await call(box, "thread_id")).result.value) == ours
    assert orjson.loads((await call(box, "thread_id_sync")).result.value) != ours


@pytest.mark.parametrize("name", ["blocks", "waits", "stubborn"])
async def test_a_function_that_takes_too_long_is_answered_for(box: Toolbox, name: str) -> None:
    box._timeout_s = 0.1
    began = time.monotonic()
    answer = await call(box, name)
    assert time.monotonic() - began < 5
    assert (answer.success, answer.error_message) == (False, f"TimeoutError: {name} did not return in 0.1 s")
    if name == "waits":
        await until(lambda: STOPPED == ["waits"])
    # What goes on keeps its place until it returns.
    assert box._places._value == (2 if name == "waits" else 1)
    RELEASE.set()
    await until(lambda: box._places._value == 2)


async def test_a_caller_that_leaves_cancels_its_function(box: Toolbox) -> None:
    task = asyncio.create_task(call(box, "waits"))
    await until(lambda: STARTED == ["waits"])
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await until(lambda: STOPPED == ["waits"] and box._places._value == 2)


async def test_no_more_run_at_once_than_may_and_the_others_wait(box: Toolbox) -> None:
    calls = [asyncio.create_task(call(box, "blocks")) for _ in range(4)]
    await until(lambda: len(STARTED) == 2 and box._waiting == 2)
    box._timeout_s = 0.1
    late = await call(box, "add", a=1)
    assert (late.success, late.error_message) == (False, "TimeoutError: add did not return in 0.1 s")
    RELEASE.set()
    answers = await within(asyncio.gather(*calls))
    assert [answer.success for answer in answers] == [True] * 4
    assert len(STARTED) == 4


async def test_no_more_wait_than_may(box: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.hosttools.toolbox.WAITING_LIMIT", 1)
    calls = [asyncio.create_task(call(box, "blocks")) for _ in range(3)]
    await until(lambda: len(STARTED) == 2 and box._waiting == 1)
    answer = await call(box, "add", a=1)
    assert (answer.success, answer.error_message) == (False, "2 host tools run and 1 calls wait already")
    RELEASE.set()
    await within(asyncio.gather(*calls))


async def test_other_tools_take_the_place_of_these_in_one_step(box: Toolbox, tmp_path: Path) -> None:
    (tmp_path / "fresh.py").write_text("def only(): return 1\n")
    put = box.prepare([f"{tmp_path}/fresh.py:only"])
    assert "add" in [spec.name for spec in box.specs()]
    put()
    assert [spec.name for spec in box.specs()] == ["only"]
    assert orjson.loads((await call(box, "only")).result.value) == 1
