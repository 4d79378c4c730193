"""How a channel gets a connection: resolve, try each address, shake hands, and rest after a failure.

Asked by lane.py, one dial at a time. A dial has succeeded when the peer's SETTINGS have come: something that
only accepts sockets is no worker. After a failure calls are refused for a while that grows to REST_MAX_S; there
is no timer, the first call after it dials again.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from typing import cast

from gateway.transport.address import Address, UnixAddress
from gateway.transport.link import Link

DIAL_TIMEOUT_S = 5.0
REST_MIN_S = 0.1
REST_MAX_S = 5.0
REST_GROWTH = 1.6
REST_JITTER = 0.2


class DialFailed(Exception):
    """No address of a worker could be reached; the message says why."""


class Dialer:
    """Makes links to one address."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None, server_name: str | None) -> None:
        self._address = address
        self._tls = tls
        self._server_name = server_name
        self._dials = 0
        self._rest_s = REST_MIN_S
        self._rest_until = 0.0
        self.last_failure = ""

    @property
    def resting(self) -> bool:
        """Whether the last dial failed so recently that another is not worth it."""
        return asyncio.get_running_loop().time() < self._rest_until

    async def dial(self, make_link: Callable[[], Link]) -> Link:
        """Return a link that has heard the peer's SETTINGS.

        A name's addresses are tried in turn, each with its share of DIAL_TIMEOUT_S, and each dial begins one
        further: reconnects spread over them.

        Raises:
            DialFailed: none could be reached. From now on `resting`, for a while.
        """
        try:
            link = await self._dial_any(make_link)
        except (OSError, TimeoutError, ssl.SSLError, DialFailed) as exc:
            self.last_failure = "timed out" if isinstance(exc, TimeoutError) else str(exc)
            self._rest_until = asyncio.get_running_loop().time() + self._rest_s * random.uniform(1 - REST_JITTER, 1 + REST_JITTER)
            self._rest_s = min(REST_MAX_S, self._rest_s * REST_GROWTH)
            raise DialFailed(self.last_failure) from exc
        self._rest_s = REST_MIN_S
        return link

    async def _dial_any(self, make_link: Callable[[], Link]) -> Link:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            if isinstance(self._address, UnixAddress):
                return await self._dial_one(make_link, self._address.path, 0)
            found = await self._address.resolve()
            first = self._dials % len(found)
            self._dials += 1
            failures: list[str] = []
            for host, port in found[first:] + found[:first]:
                try:
                    async with asyncio.timeout(DIAL_TIMEOUT_S / len(found)):
                        return await self._dial_one(make_link, host, port)
                except (OSError, DialFailed) as exc:  # TimeoutError and SSLError are OSErrors
                    failures.append(f"{host}:{port}: {str(exc) or 'timed out'}")
            raise DialFailed("; ".join(failures))

    async def _dial_one(self, make_link: Callable[[], Link], host: str, port: int) -> Link:
        loop = asyncio.get_running_loop()
        name = self._server_name if self._tls is not None else None
        link = make_link()
        # One by its methods; see there.
        protocol = cast(asyncio.BaseProtocol, link)
        try:
            if port:
                await loop.create_connection(lambda: protocol, host, port, ssl=self._tls, server_hostname=name)
            else:
                await loop.create_unix_connection(lambda: protocol, host, ssl=self._tls, server_hostname=name)
            if self._tls is not None and link.alpn != "h2":
                raise DialFailed("the worker did not agree to HTTP/2 in the TLS handshake (ALPN)")
            failure = await link.greeted
            if failure:
                raise DialFailed(failure)
        except BaseException:
            link.abort()
            raise
        return link
