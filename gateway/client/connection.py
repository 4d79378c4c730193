"""What both shells tell httpx: where the gateway is, who asks, and how a request and its failures look there."""

from __future__ import annotations

import os
import ssl
from typing import Any, NamedTuple

import httpx

from gateway.client.requests import Request
from gateway.client.steps import Answer, Lost

DEFAULT_URL = "http://localhost:8000"
_CONNECT_S = 10.0
# A request that says goodbye to a run: whoever leaves doesn't want to wait.
FAREWELL_S = 2.0


class Address(NamedTuple):
    """Where a gateway is and how to get there; the key is shown to nobody else, not even in a repr."""

    url: httpx.URL
    headers: dict[str, str]
    verify: ssl.SSLContext | bool
    proxy: str | None

    def __repr__(self) -> str:
        return f"<Address {self.url}>"

    def options(self) -> dict[str, Any]:
        """Return what httpx's clients are made with.

        The environment's proxies and .netrc are not looked at: a gateway is mostly next door, and a key is for it alone. Each stream
        holds a connection, so their number has no limit here.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        timeout = httpx.Timeout(_CONNECT_S)
        return {
            "base_url": self.url,
            "headers": self.headers,
            "verify": self.verify,
            "proxy": self.proxy,
            "limits": limits,
            "timeout": timeout,
            "trust_env": False,
        }


def address(url: str | None, key: str | None, verify: ssl.SSLContext | bool, proxy: str | None) -> Address:
    """Return the address of a gateway; what is None comes from GATEWAY_URL and GATEWAY_KEY.

    Raises:
        ValueError: the URL is none of a gateway, or the key none of anybody's.
    """
    text = url or os.environ.get("GATEWAY_URL") or DEFAULT_URL
    key = key if key is not None else os.environ.get("GATEWAY_KEY")
    try:
        base = httpx.URL(text)
    except httpx.InvalidURL as exc:
        raise ValueError(f"{text!r} is no URL: {exc}") from exc
    if base.scheme not in ("http", "https") or not base.host:
        raise ValueError(f"{text!r} is no URL of a gateway; such as {DEFAULT_URL}")
    # A compressed stream would be held back by whoever compresses it.
    headers = {"Accept-Encoding": "identity"}
    if key:
        if not (key.isascii() and key.isprintable()):
            # Not shown: it is a secret all the same.
            raise ValueError("the key has characters that no key has")
        headers["Authorization"] = f"Bearer {key}"
    return Address(base, headers, verify, proxy)


def as_httpx(request: Request, silence_s: float) -> dict[str, Any]:
    """Return a request as httpx's `build_request` takes it."""
    return {
        "method": request.method,
        "url": request.path,
        "params": list(request.query) or None,
        "headers": list(request.headers),
        "content": request.body,
        "timeout": httpx.Timeout(_CONNECT_S, read=silence_s),
    }


def answer_of(response: httpx.Response) -> Answer:
    """Return a response as a conversation sees it; its body is yet to be read."""
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()})


def lost(url: httpx.URL, error: httpx.RequestError) -> Lost:
    """Return what a failure of the network means."""
    detail = "it was silent for too long" if isinstance(error, httpx.ReadTimeout) else str(error) or type(error).__name__
    return Lost(str(url), detail, reached=not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol))
