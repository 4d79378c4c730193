"""Texts of paths and queries as values of fields: "17" for an int32 is 17, "true" for a bool is true.

What a text can't be is an error that names the parameter; limits of numbers and forms of dates are the codec's to check.
Source: protobuf.dev/programming-guides/json for the forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any as JsonValue

from google.protobuf.descriptor import FieldDescriptor

from gateway.errors import FieldError, GatewayError

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_NOT_FINITE = ("NaN", "Infinity", "-Infinity")

# What may be written as one text although it is a message; the wrappers stand for the kind of what they wrap.
_TEXTUAL = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"})
_WRAPPERS: Mapping[str, int] = {
    "google.protobuf.DoubleValue": FieldDescriptor.CPPTYPE_DOUBLE,
    "google.protobuf.FloatValue": FieldDescriptor.CPPTYPE_FLOAT,
    "google.protobuf.Int64Value": FieldDescriptor.CPPTYPE_INT64,
    "google.protobuf.UInt64Value": FieldDescriptor.CPPTYPE_UINT64,
    "google.protobuf.Int32Value": FieldDescriptor.CPPTYPE_INT32,
    "google.protobuf.UInt32Value": FieldDescriptor.CPPTYPE_UINT32,
    "google.protobuf.BoolValue": FieldDescriptor.CPPTYPE_BOOL,
    "google.protobuf.StringValue": FieldDescriptor.CPPTYPE_STRING,
    "google.protobuf.BytesValue": FieldDescriptor.CPPTYPE_STRING,
}
_INTEGERS = frozenset(
    {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
)
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})


def is_textual(field: FieldDescriptor) -> bool:
    """Whether one value of the field may be one text: it is no message, or one that JSON has no object for."""
    message = field.message_type
    return message is None or message.full_name in _TEXTUAL or message.full_name in _WRAPPERS


def value_of(field: FieldDescriptor, text: str, name: str) -> JsonValue:
    """Return the JSON value that `text` is as one value of `field`. `name` is the parameter's, for the error.

    Raises:
        GatewayError: `invalid-message`: it is none; the error says what is allowed.
    """
    kind = field.cpp_type if field.message_type is None else _WRAPPERS.get(field.message_type.full_name, FieldDescriptor.CPPTYPE_STRING)
    if kind in _INTEGERS:
        if _INTEGER.fullmatch(text):
            return int(text)
        raise _misfit(name, text, "an integer")
    if kind in _FLOATS:
        if text in _NOT_FINITE:
            return text
        if _NUMBER.fullmatch(text):
            # One that is too large goes on as text: the codec says so.
            return float(text) if abs(float(text)) != float("inf") else text
        raise _misfit(name, text, "a number")
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        if text in ("true", "false"):
            return text == "true"
        raise _misfit(name, text, "true or false")
    if field.enum_type is not None:
        if text in field.enum_type.values_by_name:
            return text
        if _INTEGER.fullmatch(text):
            return int(text)
        names = [value.name for value in field.enum_type.values]
        more = ", …" if len(names) > 20 else ""
        raise _misfit(name, text, f"one of {', '.join(names[:20])}{more}, or its number")
    return text


def _misfit(name: str, text: str, allowed: str) -> GatewayError:
    detail = f"must be {allowed}, not {text[:100]!r}"
    return GatewayError("invalid-message", f"{name} {detail}", errors=[FieldError(name, detail)])
