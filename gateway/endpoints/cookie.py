"""The session cookie: how it is set and taken back, read, and when it counts.

A browser sends it with every request to us, whichever page has asked for that. So it counts only for what our own pages ask, or
those of an allowed origin; Sec-Fetch-Site says it where the browser sends that, else Origin does. SameSite=Strict says
the same to the browser, and HttpOnly keeps it from scripts. Over HTTPS it is called `__Host-…`, which no other host of the
domain can set. Sources: RFC 6265bis §4.1.3 and §5.6, W3C Fetch Metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from gateway.endpoints.origin import is_own
from gateway.errors import GatewayError

NAME = "snakepit_session"
SECURE_NAME = "__Host-" + NAME
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """`allowed`: origins whose pages it counts for, besides ours, each by its name: `*` is none. `secure`: over HTTPS; None: as the
    request came.
    """

    allowed: frozenset[str] = frozenset()
    secure: bool | None = None

    def find(self, cookies: Sequence[bytes], scope: Mapping[str, Any]) -> str | None:
        """Return the session in a request's Cookie headers; None without one."""
        wanted = self._name(scope).encode() + b"="
        for header in cookies:
            for part in header.split(b";"):
                if (pair := part.strip()).startswith(wanted):
                    return pair[len(wanted) :].decode("latin-1")
        return None

    def check(self, scope: Mapping[str, Any]) -> None:
        """Return if a request with a cookie comes from a page whose requests the cookie is for.

        Raises:
            GatewayError: `origin-not-allowed`.
        """
        headers = Headers(scope=scope)  # type: ignore[arg-type]
        site = headers.get("sec-fetch-site")
        if site == "same-origin":
            return
        # What a browser may be made to send without a word of who made it: a navigation. It can read, and no more.
        method = scope.get("method")
        if site == "none" and method in _SAFE_METHODS:
            return
        origin = headers.get("origin")
        if origin is None:
            # An older browser's GET for its own page. One of another page comes without the cookie, for SameSite.
            is_ours = site is None and method in _SAFE_METHODS
        else:
            host = headers.get("host", "").encode("latin-1")
            is_ours = origin in self.allowed or (site is None and is_own(origin, host, secure=scope["scheme"] in ("https", "wss")))
        if not is_ours:
            detail = "A session cookie counts only for requests of the gateway's own pages; send an Authorization header instead"
            raise GatewayError("origin-not-allowed", detail)

    def put(self, response: Response, scope: Mapping[str, Any], session: str, *, max_age_s: int) -> None:
        """Have a response set the cookie; an empty session and 0 take it back."""
        response.set_cookie(
            self._name(scope), session, max_age=max_age_s, path="/", secure=self._is_secure(scope), httponly=True, samesite="strict"
        )

    def _name(self, scope: Mapping[str, Any]) -> str:
        return SECURE_NAME if self._is_secure(scope) else NAME

    def _is_secure(self, scope: Mapping[str, Any]) -> bool:
        return scope["scheme"] in ("https", "wss") if self.secure is None else self.secure
