"""The entries of a run's stream as bytes: batches of chunks, statuses, the end. Sans-I/O; what is read is what was written.

An entry is one field and its value: `c` a batch, `s` a status, `e` the end (with `n`, the number of chunks, beside it).
A batch is a header, the attributes of those chunks that have any, and the payloads: between line feeds where none has
one inside, since then both ways are one call for a whole batch, else after a table of their lengths.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any

import orjson

from gateway.codec.values import json_bytes
from gateway.errors import PROBLEMS, Code, FieldError, GatewayError, RpcFailed, ToolFailed
from gateway.events import ChunkAttributes, Chunks, Ended, Outcome, Status, Timing
from gateway.runlog.memory import CHUNK_OVERHEAD_BYTES

CHUNKS = b"c"
STATUS = b"s"
END = b"e"
COUNT = b"n"

# How the payloads stand, the first chunk's number, how many chunks, how many bytes of attributes.
_HEADER = struct.Struct("<BQII")
_BY_LINES = 1
_BY_LENGTHS = 2


def encode_chunks(first: int, payloads: list[bytes], attributes: Mapping[int, ChunkAttributes] | None) -> bytes:
    """Return a batch as one value. `attributes` is keyed by the chunk's number."""
    extra = b"" if not attributes else orjson.dumps({str(number): _attributes(value) for number, value in attributes.items()})
    text = b"\n".join(payloads)
    if text.count(b"\n") == len(payloads) - 1:
        return _HEADER.pack(_BY_LINES, first, len(payloads), len(extra)) + extra + text
    lengths = struct.pack(f"<{len(payloads)}I", *map(len, payloads))
    return b"".join((_HEADER.pack(_BY_LENGTHS, first, len(payloads), len(extra)), extra, lengths, *payloads))


def decode_chunks(data: bytes) -> Chunks:
    """Return the batch that `encode_chunks` made `data` of.

    Raises:
        ValueError: `data` is no batch, or one of a later version.
    """
    try:
        form, first, count, extra_length = _HEADER.unpack_from(data)
        start = _HEADER.size + extra_length
        extra = data[_HEADER.size : start]
        if form == _BY_LINES:
            payloads = data[start:].split(b"\n")
            size_bytes = len(data) - start
        elif form == _BY_LENGTHS:
            lengths = struct.unpack_from(f"<{count}I", data, start)
            size_bytes = sum(lengths)
            if start + 4 * count + size_bytes != len(data):
                raise ValueError(f"{len(data)} bytes instead of {start + 4 * count + size_bytes}")
            payloads = [data[begin:end] for begin, end in pairwise(accumulate(lengths, initial=start + 4 * count))]
        else:
            raise ValueError(f"payloads stand in form {form}")
        if len(payloads) != count or not count:
            raise ValueError(f"{len(payloads)} payloads instead of {count}")
        attributes = {int(number): _read_attributes(value) for number, value in orjson.loads(extra).items()} if extra else None
    except (struct.error, KeyError, ValueError) as exc:
        raise ValueError(f"not a batch of chunks: {exc}") from exc
    return Chunks(first, payloads, size_bytes + CHUNK_OVERHEAD_BYTES * count, attributes)


def encode_status(status: Status) -> bytes:
    """Return a status as JSON."""
    return json_bytes({"state": status.state, "details": dict(status.details)})


def decode_status(data: bytes) -> Status:
    """Return the status that `encode_status` made `data` of."""
    document = json.loads(data)
    return Status(document["state"], document["details"])


def encode_end(ended: Ended) -> bytes:
    """Return an end as JSON, without its number of chunks, which stands beside it: who ends a lost run doesn't know it."""
    document: dict[str, Any] = {"outcome": ended.outcome.value, "metadata": dict(ended.metadata)}
    if ended.timing is not None:
        document["timing"] = [ended.timing.queue_ms, ended.timing.first_chunk_ms, ended.timing.total_ms]
    if ended.error is not None:
        document["error"] = _error(ended.error)
    if ended.marks:
        document["marks"] = [_attributes(mark) for mark in ended.marks]
    return json_bytes(document)


def decode_end(data: bytes, chunks: int) -> Ended:
    """Return the end that `encode_end` made `data` of."""
    # Not orjson, which would round integers over 64 bits.
    document = json.loads(data)
    timing = Timing(*document["timing"]) if "timing" in document else None
    error = _read_error(document["error"]) if "error" in document else None
    marks = tuple(map(_read_attributes, document.get("marks", ())))
    return Ended(Outcome(document["outcome"]), chunks, document["metadata"], timing, error, marks)


def _attributes(value: ChunkAttributes) -> dict[str, Any]:
    document: dict[str, Any] = {"metadata": dict(value.metadata)}
    if value.is_final:
        document["final"] = True
    if value.raw is not None:
        document["raw"] = base64.b64encode(value.raw).decode()
    if value.chunk_id is not None:
        document["id"] = value.chunk_id
    if value.ahead:
        document["ahead"] = [_attributes(mark) for mark in value.ahead]
    return document


def _read_attributes(document: Mapping[str, Any]) -> ChunkAttributes:
    raw = document.get("raw")
    return ChunkAttributes(
        is_final="final" in document,
        metadata=document["metadata"],
        raw=None if raw is None else base64.b64decode(raw),
        chunk_id=document.get("id"),
        ahead=tuple(map(_read_attributes, document.get("ahead", ()))),
    )


def _error(error: GatewayError) -> dict[str, Any]:
    document: dict[str, Any] = {"problem": error.problem, "detail": error.detail, "extra": error.extra}
    if error.errors:
        document["errors"] = [list(field) for field in error.errors]
    if error.retry_after_s is not None:
        document["retry_after_s"] = error.retry_after_s
    if isinstance(error, ToolFailed):
        document["tool"] = {"code": int(error.code), "type": error.error_type, "traceback": error.traceback, "raw": error.raw}
    elif isinstance(error, RpcFailed):
        document["rpc"] = int(error.code)
    return document


def _read_error(document: Mapping[str, Any]) -> GatewayError:
    extra = document["extra"]
    tool = document.get("tool")
    error: GatewayError
    if tool is not None:
        code = Code.from_wire(tool["code"])
        error = ToolFailed(code, document["detail"], error_type=tool["type"], traceback=tool["traceback"], raw=tool["raw"])
        error.extra = extra
    elif "rpc" in document:
        error = RpcFailed(Code.from_wire(document["rpc"]), document["detail"])
        error.extra = extra
    else:
        # A gateway of a later version may know problems that this one doesn't.
        problem = document["problem"] if document["problem"] in PROBLEMS else "internal"
        error = GatewayError(problem, document["detail"], extra=extra)
    error.errors = tuple(FieldError(*field) for field in document.get("errors", ()))
    error.retry_after_s = document.get("retry_after_s")
    return error
