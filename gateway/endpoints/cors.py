"""What tells a browser that pages of other origins may read the answers: CORS.

Asked by exposure.py for requests that OriginRule has let in. The headers of each origin are made once, so that a response
costs no more than adding them; a middleware would take every request off its direct way. Source: Fetch §3.3.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.responses import Response

from gateway.endpoints.exchange import Headers
from gateway.endpoints.origin import ANY

# What a page may read of an answer besides its body and the few fields that it may always read.
EXPOSED = (
    "Content-Location",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Request-Id",
)
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
# How long a browser may remember the answer to a preflight: Chromium's limit is two hours.
PREFLIGHT_MAX_AGE_S = 600

_FIELD_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]+")


class Cors:
    """`allowed`: origins as OriginRule has them. `credentials`: their pages may send cookies and read what is answered then.

    `exposed`: headers that they may read besides EXPOSED.
    """

    def __init__(self, allowed: Collection[str] = (), *, credentials: bool = False, exposed: Collection[str] = ()) -> None:
        self._all = ANY in allowed
        # An answer to a request without an Origin must not be what a cache gives to one with it.
        self._plain: Headers = ((b"vary", b"Origin"),) if allowed and not self._all else ()
        self._credentials: Headers = ((b"access-control-allow-credentials", b"true"),) if credentials else ()
        self._exposed = ", ".join((*EXPOSED, *sorted(exposed)))
        self._headers: dict[str, Headers] = {origin: self._readable(origin) for origin in allowed}

    def headers(self, origin: str | None) -> Headers:
        """Return what every answer to a page of this origin carries; None: to a request that names none."""
        if origin is None or not self._headers:
            return self._plain
        return self._headers.get(ANY if self._all else origin, self._plain)

    def preflight(self, asked: bytes, *, private_network: bool) -> Response:
        """Return the answer to a preflight that is allowed. `asked` is its Access-Control-Request-Headers.

        The names are given back since `*` would not cover Authorization. `private_network`: the page is on the internet and we are
        not, and the browser wants to know whether that is meant (WICG Private Network Access).
        """
        headers = {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
            "Vary": "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
        }
        if _FIELD_NAMES.fullmatch(asked):
            headers["Access-Control-Allow-Headers"] = asked.decode("ascii")
        if private_network:
            headers["Access-Control-Allow-Private-Network"] = "true"
        return Response(status_code=204, headers=headers)

    def _readable(self, origin: str) -> Headers:
        return (
            *self._plain,
            (b"access-control-allow-origin", origin.encode()),
            (b"access-control-expose-headers", self._exposed.encode()),
            *self._credentials,
        )
