"""To whom this server shows itself: the check that every request passes before anybody asks who its caller is.

Asked by express.py for HTTP, on the direct way and on ASGI's, and by websocket.py. It looks once through a request's fields
and asks hosts.py and origin.py; what the answer has to carry for that (cors.py) it leaves in the scope. Invariant: for
a request without an Origin that is all it costs.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from gateway.endpoints.clients import FORWARDED_FOR, FORWARDED_PROTO, TrustedProxies
from gateway.endpoints.cors import Cors
from gateway.endpoints.exchange import Headers
from gateway.endpoints.hosts import HostRule
from gateway.endpoints.origin import OriginRule
from gateway.errors import GatewayError

# Where a scope has what every answer to its request carries.
ANSWER_HEADERS: Final = "gateway.answer_headers"
# Whoever restarts us asks by an address that the settings can't know, and learns nothing.
PROBES: Final = frozenset({"/livez", "/readyz"})

_FIELDS: Final = frozenset(
    {b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", FORWARDED_FOR, FORWARDED_PROTO}
    | {b"access-control-request-method", b"access-control-request-headers", b"access-control-request-private-network"}
)


class Exposure:
    """The rules of one server, which are the same for all its routes."""

    def __init__(
        self,
        hosts: HostRule | None = None,
        origins: OriginRule | None = None,
        cors: Cors | None = None,
        proxies: TrustedProxies | None = None,
    ) -> None:
        """What is left out: every host, no origin but the server's own, no CORS, no proxy that is believed."""
        self._hosts = hosts or HostRule()
        self._origins = origins or OriginRule()
        self._cors = cors or Cors()
        self._proxies = proxies or None

    def check(self, scope: Any) -> Response | None:
        """Return None to a request that may come in, whose scope has ANSWER_HEADERS then; to a preflight, return its answer.

        Takes ASGI's scopes of HTTP requests and of WebSockets.

        Raises:
            GatewayError: `host-not-allowed`, `origin-not-allowed`, `invalid-request`.
        """
        fields: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _FIELDS:
                if name in fields:
                    value = _repeated(name, fields[name], value)
                fields[name] = value
        host = fields.get(b"host")
        if host is not None:
            if scope["path"] not in PROBES:
                self._hosts.check(host)
        elif scope["http_version"] == "1.1":
            raise GatewayError("invalid-request", "The request has no Host field")
        if self._proxies is not None:
            self._proxies.apply(scope, fields.get(FORWARDED_FOR, b""), fields.get(FORWARDED_PROTO, b""))
        origin, site = fields.get(b"origin"), fields.get(b"sec-fetch-site")
        if origin is None and site is None:
            scope[ANSWER_HEADERS] = self._cors.headers(None)
            return None
        return self._check_page(scope, fields, origin, site)

    def _check_page(self, scope: Any, fields: dict[bytes, bytes], field: bytes | None, site: bytes | None) -> Response | None:
        """Do what `check` says for a request that a browser has sent for a page."""
        origin = None if field is None else field.decode("latin-1")
        self._origins.check(
            origin,
            None if site is None else site.decode("latin-1"),
            fields.get(b"host", b""),
            secure=scope["scheme"] in ("https", "wss"),
            navigates=_navigates(scope, fields),
        )
        headers: Headers = self._cors.headers(origin)
        scope[ANSWER_HEADERS] = headers
        if scope["type"] != "http" or scope["method"] != "OPTIONS" or b"access-control-request-method" not in fields:
            return None
        if origin is None or not self._origins.allows(origin):
            # Browsers ask only for other origins: whoever asks for our own gets the route's answer.
            return None
        wanted = fields.get(b"access-control-request-headers", b"")
        return self._cors.preflight(wanted, private_network=fields.get(b"access-control-request-private-network") == b"true")


def _repeated(name: bytes, first: bytes, second: bytes) -> bytes:
    """Return what a repeated field comes to.

    Raises:
        GatewayError: `invalid-request`: of two hosts or origins, whoever passed the request on may have looked at the other.
    """
    if name in (b"host", b"origin"):
        raise GatewayError("invalid-request", f"The field {name.decode().title()} is there twice")
    return first + b"," + second


def _navigates(scope: Any, fields: dict[bytes, bytes]) -> bool:
    """Return whether a person has followed a link to one of our documents; the API has none."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and fields.get(b"sec-fetch-mode") == b"navigate"
        and fields.get(b"sec-fetch-dest") == b"document"
        and not scope["path"].startswith("/v1/")
    )
