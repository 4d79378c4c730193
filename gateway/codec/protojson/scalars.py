"""What is wrong with one JSON value for a field that is a number, a text, bytes, a boolean or an enum; used by checker.py.

Source: protobuf.dev/programming-guides/json: numbers may be text, texts are UTF-8, bytes are base64 of either alphabet.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Mapping
from typing import Any as JsonValue

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

_NAMES_LIMIT = 20
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_INTEGER = re.compile(r"-?[0-9]{1,30}")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")
_FLOAT_MAX = 3.4028234663852886e38
_SURROGATE = re.compile("[\ud800-\udfff]")

_LIMITS: Mapping[int, tuple[int, int]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def fault(value: JsonValue, field: FieldDescriptor, *, is_key: bool = False) -> str | None:
    """Return what is wrong with one value of the field, as the end of a sentence; None: nothing. A map's keys are always text."""
    kind = field.cpp_type
    if kind in _LIMITS:
        return _integer_fault(value, *_LIMITS[kind])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if is_key:
            return None if value in ("true", "false") else "must be true or false"
        return None if isinstance(value, bool) else "must be true or false, without quotes"
    if field.enum_type is not None:
        return _enum_fault(value, field.enum_type)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return _number_fault(value, is_float=kind == FieldDescriptor.CPPTYPE_FLOAT)
    if not isinstance(value, str):
        return "must be text"
    if field.type == FieldDescriptor.TYPE_BYTES:
        return None if _BASE64.fullmatch(value) and len(value.rstrip("=")) % 4 != 1 else "must be bytes in base64"
    return "must be text without halves of surrogate pairs" if _SURROGATE.search(value) else None


def _integer_fault(value: JsonValue, least: int, most: int) -> str | None:
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    else:
        real = value
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            real = float(value)
        if isinstance(real, float) and real.is_integer():
            number = int(real)
    return None if number is not None and least <= number <= most else f"must be an integer from {least} to {most}"


def _number_fault(value: JsonValue, *, is_float: bool) -> str | None:
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    elif isinstance(value, str):
        if value in _NOT_FINITE:
            return None
        if _NUMBER.fullmatch(value):
            number = float(value)
    else:
        return 'must be a number, "NaN", "Infinity" or "-Infinity"'
    if math.isnan(number):
        return 'must be a number, "NaN", "Infinity" or "-Infinity"'
    if math.isinf(number) or (is_float and abs(number) > _FLOAT_MAX):
        most = _FLOAT_MAX if is_float else sys.float_info.max
        return f"must be a number from {-most} to {most}"
    return None


def _enum_fault(value: JsonValue, enum: EnumDescriptor) -> str | None:
    if isinstance(value, str) and value in enum.values_by_name:
        return None
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        number = int(value)
    if number is not None and -(2**31) <= number < 2**31 and (number in enum.values_by_number or not enum.is_closed):
        return None
    names = [known.name for known in enum.values]
    near = difflib.get_close_matches(value[:100], names, n=1) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else ""
    more = f" and {len(names) - _NAMES_LIMIT} more" if len(names) > _NAMES_LIMIT else ""
    return f"must be one of {', '.join(names[:_NAMES_LIMIT])}{more}, or its number{hint}"
