"""Which web pages may open a socket here: the server's own, and those that the settings name.

A WebSocket is not covered by CORS, so its Origin is checked before it is accepted (RFC 6455 §10.2). A client that
isn't a browser sends none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class OriginRule:
    """`allowed`: origins such as `https://app.example.com`, besides the server's own; `*` for all."""

    allowed: Collection[str] = ()

    def check(self, headers: Headers) -> None:
        """Return if a request with these headers may open a socket.

        Raises:
            GatewayError: `origin-not-allowed`.
        """
        origin = headers.get("origin")
        if origin is None or origin in self.allowed or "*" in self.allowed:
            return
        if _host(origin) != headers.get("host"):
            raise GatewayError("origin-not-allowed", f"Origin {origin[:100]!r} may not open a socket here; see server.allowed_origins")


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
