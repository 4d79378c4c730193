"""How a call ended, read from what HTTP/2 and gRPC put on the wire.

Three places can say it: the trailers, an HTTP status other than 200 (a proxy answered), or RST_STREAM. stream.py
asks here. Standards: gRPC over HTTP/2 ("PROTOCOL-HTTP2.md", sections Responses and Errors) and the
"http-grpc-status-mapping" document.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from urllib.parse import unquote

from gateway.errors import Code
from gateway.transport.base import CallStatus
from gateway.transport.frames import ErrorCode, error_name

# As text, because what a peer sends need not be a number at all.
_CODES: Mapping[str, Code] = {str(code.value): code for code in Code}

_FROM_HTTP: Mapping[str, Code] = {
    "400": Code.INTERNAL,
    "401": Code.UNAUTHENTICATED,
    "403": Code.PERMISSION_DENIED,
    "404": Code.UNIMPLEMENTED,
    "429": Code.UNAVAILABLE,
    "502": Code.UNAVAILABLE,
    "503": Code.UNAVAILABLE,
    "504": Code.UNAVAILABLE,
}

_FROM_RESET: Mapping[int, Code] = {
    ErrorCode.NO_ERROR: Code.INTERNAL,
    ErrorCode.PROTOCOL_ERROR: Code.INTERNAL,
    ErrorCode.INTERNAL_ERROR: Code.INTERNAL,
    ErrorCode.FLOW_CONTROL_ERROR: Code.INTERNAL,
    ErrorCode.SETTINGS_TIMEOUT: Code.INTERNAL,
    ErrorCode.FRAME_SIZE_ERROR: Code.INTERNAL,
    ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
    ErrorCode.CANCEL: Code.CANCELLED,
    ErrorCode.COMPRESSION_ERROR: Code.INTERNAL,
    ErrorCode.CONNECT_ERROR: Code.INTERNAL,
    ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}

_OWN_TRAILERS = frozenset({":status", "content-type", "grpc-status", "grpc-message", "grpc-status-details-bin"})
_OK = CallStatus(Code.OK)
_USUAL_TRAILERS = {"grpc-status": "0", "grpc-message": ""}


def status_from_trailers(trailers: Mapping[str, str]) -> CallStatus:
    """Return the status that a block of trailers (or a trailers-only answer) says.

    Without a `grpc-status` it is UNKNOWN. A `grpc-status-details-bin` that isn't base64 is dropped: details are
    an extra, and the status itself is what the caller must not lose.
    """
    number = trailers.get("grpc-status")
    if number == "0" and (len(trailers) == 1 or trailers == _USUAL_TRAILERS):
        return _OK
    if number is None:
        return CallStatus(Code.UNKNOWN, "the worker ended the stream without a grpc-status", trailers=_custom(trailers))
    return CallStatus(
        _CODES.get(number, Code.UNKNOWN),
        # Percent-decoding as gRPC wants it: what isn't a valid escape stays as it is, never an error.
        unquote(trailers.get("grpc-message", ""), errors="replace"),
        _decoded(trailers.get("grpc-status-details-bin")),
        _custom(trailers),
    )


def status_from_http(http_status: str, content_type: str) -> CallStatus:
    """Return the status for an answer that isn't gRPC: from a proxy, or from something else on that port."""
    code = _FROM_HTTP.get(http_status, Code.UNKNOWN)
    return CallStatus(code, f"not a gRPC answer: HTTP status {http_status or 'missing'}, content-type {content_type or 'missing'}")


def status_from_reset(error_code: int) -> CallStatus:
    """Return the status for RST_STREAM with `error_code`; one with no row in gRPC's table is UNKNOWN."""
    return CallStatus(_FROM_RESET.get(error_code, Code.UNKNOWN), f"the worker reset the stream: {error_name(error_code)}")


def format_timeout(timeout_s: float) -> str:
    """Return a `grpc-timeout` value: at most eight digits and a unit, rounded up so that the peer never gives up first."""
    if timeout_s < 99:
        return f"{max(1, math.ceil(timeout_s * 1e6))}u"
    if timeout_s < 99_999:
        return f"{math.ceil(timeout_s * 1e3)}m"
    return f"{min(math.ceil(timeout_s), 99_999_999)}S"


def _custom(trailers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in trailers.items() if name not in _OWN_TRAILERS}


def _decoded(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
