"""payload.py: every Python value a tool may yield, as JSON."""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.runtime import payload
from gateway.runtime.failure import TooLarge, Unserialisable
from gateway.runtime.payload import encode


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: int
    y: Any = None


class Model(BaseModel):
    name: str
    when: datetime | None = None


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        ("text é", "text é"),
        (b"\x00\xff", {"$bytes": "AP8="}),
        pytest.param({"deep": [bytearray(b"A"), memoryview(b"B")]}, {"deep": [{"$bytes": "QQ=="}, {"$bytes": "Qg=="}]}, id="deep"),
        ([math.nan, math.inf, -math.inf, 1.5], [None, None, None, 1.5]),
        (2**64, 2**64),
        ({"big": [10**30, -(2**70)]}, {"big": [10**30, -(2**70)]}),
        ([2**64, math.nan, b"A", Point(2**65)], [2**64, None, {"$bytes": "QQ=="}, {"x": 2**65, "y": None}]),
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        (frozenset({1}), [1]),
        (deque([1, 2]), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("/a/b"), "/a/b"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (time(3, 4, tzinfo=UTC), "03:04:00+00:00"),
        (timedelta(seconds=90), 90.0),
        (Colour.RED, "red"),
        ([Level.HIGH, 2**64], [3, 2**64]),
        (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}),
        (Model(name="a", when=datetime(2026, 1, 1)), {"name": "a", "when": "2026-01-01T00:00:00"}),
        ({1: "a", None: "b", False: "c", 1.5: "d", Colour.RED: "e"}, {"1": "a", "null": "b", "false": "c", "1.5": "d", "red": "e"}),
        ({1: 2**64, None: 0, False: 1, 2.5: 2, Colour.RED: 3}, {"1": 2**64, "null": 0, "false": 1, "2.5": 2, "red": 3}),
        ({date(2026, 1, 2): 2**64}, {"2026-01-02": 2**64}),
        (np.arange(6, dtype=np.int32).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.arange(6).reshape(2, 3).T, [[0, 3], [1, 4], [2, 5]]),
        (np.array([1.5, np.nan]), [1.5, None]),
        ({"s": [np.float32(0.5), np.int64(7), np.bool_(True), np.float64("nan")]}, {"s": [0.5, 7, True, None]}),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([{"k": b"A"}], dtype=object), [{"k": {"$bytes": "QQ=="}}]),
        ({np.int64(3): 2**64}, {"3": 2**64}),
    ],
    ids=repr,
)
def test_value_of_a_supported_type_becomes_its_json(value: Any, expected: Any) -> None:
    encoded = encode(value)
    orjson.loads(encoded)  # strict: no NaN, valid UTF-8
    assert json.loads(encoded) == expected


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_unicode_line_separator_is_escaped_so_that_splitlines_sees_one_line(separator: str) -> None:
    encoded = encode({"text": f"é{separator}b", separator: 1})
    assert len(encoded.decode().splitlines()) == 1
    assert json.loads(encoded) == {"text": f"é{separator}b", separator: 1}


@pytest.mark.parametrize("value", ["a\ud800b", {"k": ["\udfff"]}, {"\ud800": 1}])
def test_lone_surrogate_becomes_the_replacement_character(value: Any) -> None:
    assert "\ufffd" in encode(value).decode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (threading.Lock(), "can't serialise thread.lock at $"),
        ({"model": {"layers": [1, 2, 3, threading.Lock()]}}, "can't serialise thread.lock at $.model.layers[3]"),
        ({"a key": {1, object()}}, "can't serialise object at $['a key'][1]"),
        ([complex(1, 2)], "can't serialise complex at $[0]"),
        (np.array([1j]), "can't serialise complex at $[0]"),
        (Point(1, lambda: 0), "can't serialise function at $.y"),
        ({"m": Model}, "can't serialise pydantic._internal._model_construction.ModelMetaclass at $.m"),
        ((i for i in ()), "can't serialise generator at $"),
        ({"a": {(1, 2): 3}}, "can't use tuple as a key of the object at $.a"),
    ],
)
def test_value_without_a_json_form_is_refused_with_its_type_and_place(value: Any, message: str) -> None:
    with pytest.raises(Unserialisable) as caught:
        encode(value)
    assert str(caught.value).replace("$['a key'][0]", "$['a key'][1]") == message


def test_cycle_is_refused_with_its_place() -> None:
    value: dict[str, Any] = {"a": [1]}
    value["a"].append(value)
    with pytest.raises(Unserialisable, match=r"circular reference to dict at \$\.a\[1\]"):
        encode(value)


def test_same_object_twice_side_by_side_is_no_cycle() -> None:
    part = {"n": 2**64}
    assert json.loads(encode([part, part])) == [part, part]


def test_nesting_beyond_the_limit_is_refused() -> None:
    value: Any = 0
    for _ in range(5000):
        value = [value]
    with pytest.raises(Unserialisable, match="nested deeper than 250 levels"):
        encode(value)


def test_nesting_just_below_the_limit_passes() -> None:
    value: Any = 2**64
    for _ in range(payload.DEPTH_LIMIT - 1):
        value = [value]
    assert json.loads(encode(value)) == value


def test_value_over_the_message_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "PAYLOAD_LIMIT_BYTES", 10)
    assert encode("12345678") == b'"12345678"'
    with pytest.raises(TooLarge, match="11 bytes"):
        encode("123456789")


def test_encoding_does_not_import_numpy() -> None:
    import subprocess
    import sys

    code = "import sys; from gateway.runtime.payload import encode; encode({1: b'', 'x': {2}}); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_any_json_value_round_trips(value: Any) -> None:
    encoded = encode(value)
    assert json.loads(encoded) == value
    assert len(encoded.decode().splitlines()) == 1
