"""What a gRPC service's bad ending means: its status, and the details of a `google.rpc.Status`, as a GatewayError.

rpcstream.py asks once for each call that didn't end well. Details become JSON by their types: the service's own, and Google's; what
is of no known type stays as it is, as base64. Some say more than themselves: BadRequest names wrong fields, RetryInfo a time.
Source: google/rpc/status.proto and error_details.proto; AIP-193.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from gateway.codec.protojson import Codecs, MessageCodec
from gateway.errors import Code, FieldError, GatewayError, RpcFailed
from gateway.services.directory import Directory
from gateway.transport.base import CallStatus

DETAILS_LIMIT = 32
ERRORS_LIMIT = 100

# Google's own types of details stand in the pool that every program has.
_GOOGLES = Codecs(descriptor_pool.Default())
_INDEX = re.compile(r"\[([0-9]+)\]")


def rpc_error(status: CallStatus, tool: str, pool: str, timeout_s: float, directory: Directory) -> GatewayError | None:
    """Return the error that a call's status stands for; None for OK. `tool` is the method, `directory` where its types are."""
    if status.code is Code.OK:
        return None
    if status.connection_lost:
        return GatewayError("service-lost", f"the connection to service {pool} was lost: {status.message}")
    if status.details is not None:
        return _detailed(status, tool, status.details, directory)
    if status.code is Code.DEADLINE_EXCEEDED:
        return GatewayError("worker-timeout", f"{tool} had not ended after {timeout_s:g} s")
    if status.code is Code.RESOURCE_EXHAUSTED and ("larger than" in status.message or "message of" in status.message):
        return GatewayError("chunk-too-large", f"{tool}: {status.message}")
    return RpcFailed(status.code, _text(status, tool))


def _detailed(status: CallStatus, tool: str, data: bytes, directory: Directory) -> RpcFailed:
    try:
        said = Status.FromString(data)
    except DecodeError:
        return RpcFailed(status.code, _text(status, tool))
    details: list[dict[str, Any]] = []
    errors: list[FieldError] = []
    retry_after_s = None
    for detail in said.details[:DETAILS_LIMIT]:
        details.append(_as_json(detail, directory))
        if detail.Is(BadRequest.DESCRIPTOR):
            errors += _field_errors(detail)
        elif detail.Is(RetryInfo.DESCRIPTOR):
            retry_after_s = _retry_after_s(detail)
    return RpcFailed(status.code, _text(status, tool), errors=errors[:ERRORS_LIMIT], retry_after_s=retry_after_s, details=details)


def _text(status: CallStatus, tool: str) -> str:
    return status.message or f"{tool} ended with {status.code.name}"


def _as_json(detail: AnyMessage, directory: Directory) -> dict[str, Any]:
    codec = directory.codec(detail.type_url) or _googles(detail.type_url)
    if codec is not None:
        try:
            value = codec.to_value(detail.value)
        except GatewayError:
            pass
        else:
            return {"@type": detail.type_url, **value} if isinstance(value, dict) else {"@type": detail.type_url, "value": value}
    return {"@type": detail.type_url, "value": base64.b64encode(detail.value).decode("ascii")}


def _googles(type_url: str) -> MessageCodec | None:
    try:
        return _GOOGLES.codec(descriptor_pool.Default().FindMessageTypeByName(type_url.rpartition("/")[2]))
    except KeyError:
        return None


def _field_errors(detail: AnyMessage) -> list[FieldError]:
    try:
        violations = BadRequest.FromString(detail.value).field_violations[:ERRORS_LIMIT]
    except DecodeError:
        return []
    return [FieldError(_pointer(violation.field), violation.description or violation.reason) for violation in violations]


def _pointer(path: str) -> str:
    """Return the JSON pointer for a path as services write it, `book.authors[2].full_name`: the names are those in the JSON."""
    parts = _INDEX.sub(r".\1", path).split(".")
    return "".join(f"/{_json_name(part)}" for part in parts if part)


def _json_name(name: str) -> str:
    """Return a field's name in JSON, as protoc makes it of its own."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def _retry_after_s(detail: AnyMessage) -> float | None:
    try:
        delay = RetryInfo.FromString(detail.value).retry_delay
    except DecodeError:
        return None
    seconds = delay.seconds + delay.nanos / 1e9
    return seconds if seconds > 0 else None
