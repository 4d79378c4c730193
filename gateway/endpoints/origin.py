"""Which web pages may use this server: its own, and those of the origins that the settings name.

Asked by exposure.py for every request, and for every WebSocket before it is accepted (CORS does not cover them, RFC 6455
§10.2). A browser lets any page send requests anywhere: by `<img>`, `<script>`, a form, EventSource, sendBeacon. CORS hides the
answer from the page, but a tool has run by then. What tells them from the server's own pages is what no page can
forge, Sec-Fetch-Site and Origin. Clients that are no browsers send neither, and pass.

| Origin                   | Sec-Fetch-Site            |                                                       |
|--------------------------|---------------------------|-------------------------------------------------------|
| allowed                  | any                       | passes, with CORS headers                             |
| any other, `null`, none  | `same-origin`, `none`     | passes: the browser itself says so                    |
| the server's own, none   | none (an older browser)   | passes                                                |
| any other, `null`        | none (an older browser)   | refused                                               |
| any other, `null`, none  | `cross-site`, `same-site` | refused, unless a person follows a link to a document |

Sec-Fetch-Site counts more than Origin: a page with `Referrer-Policy: no-referrer` sends a beacon to its own server with `Origin:
null`, and behind a proxy that changes Host its origin is not the one that we see. Source: Fetch Metadata (W3C), Fetch §3.2.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from gateway.endpoints.hosts import split_host
from gateway.errors import GatewayError

ANY = "*"

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class OriginRule:
    """`allowed`: origins as `parse_origin` returns them, besides the server's own; `*` for all."""

    __slots__ = ("_all", "_allowed")

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._allowed = frozenset(allowed)
        self._all = ANY in self._allowed

    def allows(self, origin: str) -> bool:
        """Return whether the settings let pages of this origin in."""
        return self._all or origin in self._allowed

    def check(self, origin: str | None, site: str | None, host: bytes, *, secure: bool, navigates: bool) -> None:
        """Return if a request with these Origin, Sec-Fetch-Site and Host fields may come in.

        `secure`: it came over TLS. `navigates`: it asks for a document that a person has followed a link to.

        Raises:
            GatewayError: `origin-not-allowed`.
        """
        if self._all or (origin is not None and origin in self._allowed):
            return
        if site is None:
            if origin is None or is_own(origin, host, secure=secure):
                return
        elif site in ("same-origin", "none") or navigates:
            return
        who = f"A page of {origin[:100]!r}" if origin is not None else "A page of another origin"
        raise GatewayError("origin-not-allowed", f"{who} may not use this server; its own pages may, and those of server.allowed_origins")


def parse_origin(text: str) -> str:
    """Return an origin of the settings as browsers write it.

    Raises:
        ValueError: it is neither `scheme://host` nor `scheme://host:port` nor `*`.
    """
    origin = text.strip().lower()
    if origin == ANY:
        return ANY
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        hint = "; every sandboxed page is of the origin null, whoever wrote it" if origin == "null" else ""
        raise ValueError(f"{text!r} is not an origin; write scheme://host or scheme://host:port, without a path, or *{hint}")
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def is_own(origin: str, host: bytes, *, secure: bool) -> bool:
    """Return whether an origin is that of the pages on this server.

    Where we speak no TLS a proxy before us may, so that both schemes can be ours.
    """
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None or match[1] not in (("https",) if secure else ("http", "https")):
        return False
    scheme, name, port = match.groups()
    try:
        own_name, own_port = split_host(host)
    except GatewayError:
        return False
    default = _DEFAULT_PORTS[scheme]
    return (name.removesuffix("."), port or default) == (own_name, own_port or default)
