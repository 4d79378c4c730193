"""Where the log is: a URL, read into what the client library needs, and into a form without its password."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import Connection, SSLConnection, parse_url

SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
URL_RULE = "redis://, rediss://, valkey:// or valkeys://, then [user:password@]host[:port][/database]"
# What a URL's query may set; the rest would change how replies are read.
_QUERY_OPTIONS = frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname", "db"})


class Address:
    """A server's address. `str()` shows host, port and database, never the password."""

    def __init__(self, url: str) -> None:
        """Read a URL: `valkeys://user:password@host:6380/2?ssl_ca_certs=/etc/ca.pem`.

        Raises:
            ValueError: the URL can't be used, and why; it does not quote the URL, which may hold a password.
        """
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in SCHEMES:
            begins = f"begins with {scheme[:20]!r}" if separator else "has no scheme"
            raise ValueError(f"the log's URL {begins}; allowed: {URL_RULE}")
        try:
            parts = urlsplit(url)
            options: dict[str, Any] = dict(parse_url(f"{SCHEMES[scheme]}://{rest}"))
            port = parts.port or 6379
        except ValueError as exc:
            raise ValueError(f"the log's URL can't be read: {exc}; allowed: {URL_RULE}") from exc
        if not parts.hostname:
            raise ValueError(f"the log's URL has no host; allowed: {URL_RULE}")
        database = parts.path.strip("/")
        if database and not database.isdecimal():
            raise ValueError(f"the log's URL names the database {database[:20]!r}, which isn't a number; allowed: {URL_RULE}")
        secure: bool = options.pop("connection_class", Connection) is SSLConnection
        known = {"host", "port", "username", "password"} | _QUERY_OPTIONS
        unknown = sorted(options.keys() - known)
        if unknown:
            raise ValueError(f"the log's URL has an unknown option {unknown[0]!r}; allowed: {', '.join(sorted(_QUERY_OPTIONS))}")
        self._options = options
        self._class = SSLConnection if secure else Connection
        self._text = f"{scheme}://{parts.hostname}:{port}" + (f"/{database}" if database else "")

    def __str__(self) -> str:
        return self._text

    def connection(self, *, connect_timeout_s: float, name: str) -> Connection:
        """Return a connection that is not open yet. `name` is what `CLIENT LIST` shows."""
        # RESP2, whose replies are plain lists; times and retries are ours.
        return self._class(
            **self._options,
            protocol=2,
            socket_timeout=None,
            socket_connect_timeout=connect_timeout_s,
            client_name=name,
            driver_info=None,
        )
