"""Where credentials stand in an HTTP request or a WebSocket's handshake, and how they are taken out of its scope.

`Authorization: Bearer …`; the option `_ticket` of a GET or a handshake, whose client can send no header; the subprotocol
`bearer.<base64url>` beside our own; the session cookie. The first three are what somebody chose to send, so two of them are a
mistake; a cookie is sent by the browser whatever the page wants, so it counts only where there is none of them. What is taken
out here is seen by nothing behind it: no log, no error, no link. Sources: RFC 6750 §2, RFC 6455 §4.1.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from gateway.errors import GatewayError

TICKET_OPTION = b"_ticket="
BEARER_PROTOCOL = "bearer."


class Credentials(NamedTuple):
    """What a request came with: at most one of `bearer` and `ticket`, and the cookies, which may be anything."""

    bearer: str | None
    ticket: str | None
    cookies: list[bytes]


def read_credentials(scope: Mapping[str, Any]) -> Credentials:
    """Return the credentials in a scope, which is not changed.

    Raises:
        GatewayError: `credential-conflict`, there are two; `invalid-credential`, one can't be read; `unauthenticated`, it is of
            another kind.
    """
    bearers: list[str] = []
    cookies: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"authorization":
            bearers.append(_bearer(value))
        elif name == b"cookie":
            cookies.append(value)
    if scope["type"] == "websocket":
        bearers += [_from_protocol(name) for name in scope.get("subprotocols", ()) if name.startswith(BEARER_PROTOCOL)]
    tickets = _tickets(scope["query_string"])
    if len(bearers) + len(tickets) > 1:
        detail = "One credential is enough: an Authorization header, a ticket or a WebSocket subprotocol, and no two of them"
        raise GatewayError("credential-conflict", detail)
    if tickets and scope["type"] == "http" and scope["method"] != "GET":
        raise GatewayError("invalid-credential", "A ticket is for a GET or a WebSocket; this request can send an Authorization header")
    return Credentials(bearers[0] if bearers else None, tickets[0] if tickets else None, cookies)


def remove_credentials(scope: MutableMapping[str, Any]) -> None:
    """Take a ticket and a token out of the parts of a scope that are looked at, or logged, later."""
    query: bytes = scope["query_string"]
    if TICKET_OPTION in query:
        scope["query_string"] = b"&".join(part for part in query.split(b"&") if not part.startswith(TICKET_OPTION))
    if scope["type"] == "websocket":
        scope["subprotocols"] = [name for name in scope.get("subprotocols", ()) if not name.startswith(BEARER_PROTOCOL)]


def _bearer(value: bytes) -> str:
    scheme, _, credential = value.partition(b" ")
    if scheme.lower() != b"bearer" or not credential.strip():
        raise GatewayError("unauthenticated", "The Authorization header is to say: Bearer, and a key or a token")
    return credential.strip().decode("latin-1")


def _from_protocol(name: str) -> str:
    text = name.removeprefix(BEARER_PROTOCOL)
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
    except ValueError as exc:
        raise GatewayError("invalid-credential", "The subprotocol bearer.… is to hold a key or a token in base64url") from exc


def _tickets(query: bytes) -> list[str]:
    if TICKET_OPTION not in query:
        return []
    return [unquote_plus(part[len(TICKET_OPTION) :].decode("latin-1")) for part in query.split(b"&") if part.startswith(TICKET_OPTION)]
