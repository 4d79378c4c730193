"""How many connections are open, in all and from each address; a new one over a limit is refused.

One for a server; guard.py asks it at every connection, and tells it of every end. An address is that of the TCP peer: what a
request says of whom it was forwarded for comes later, and costs a connection already. TLS handshakes are not counted,
but bounded in time.
"""

from __future__ import annotations

from collections.abc import Container

from gateway.errors import GatewayError

# When a client that was refused may try again.
RETRY_AFTER_S = 5.0


class Peers:
    """`limit` is for all connections, `address_limit` for each address; 0: none. Addresses in `uncounted` have no limit of their own."""

    def __init__(self, limit: int, address_limit: int = 0, uncounted: Container[str] = ()) -> None:
        self._limit = limit
        self._address_limit = address_limit
        self._uncounted = uncounted
        self._open = 0
        self._by_address: dict[str, int] = {}

    def __len__(self) -> int:
        return self._open

    def enter(self, client: tuple[str, int] | None) -> None:
        """Count a connection. `client` is its peer's address and port; None: a Unix socket's, or one that is gone already.

        Raises:
            GatewayError: `too-many-connections`; it is not counted then.
        """
        if self._open >= self._limit:
            raise _too_many(f"{self._limit} connections are open, which is server.connections_limit")
        if self._address_limit and client is not None and client[0] not in self._uncounted:
            count = self._by_address.get(client[0], 0)
            if count >= self._address_limit:
                raise _too_many(f"{count} connections from {client[0]} are open, which is server.connections_per_address_limit")
            self._by_address[client[0]] = count + 1
        self._open += 1

    def leave(self, client: tuple[str, int] | None) -> None:
        """Take back what `enter` has counted."""
        self._open -= 1
        if client is not None and client[0] in self._by_address:
            self._by_address[client[0]] -= 1
            if not self._by_address[client[0]]:
                del self._by_address[client[0]]


def _too_many(detail: str) -> GatewayError:
    return GatewayError("too-many-connections", detail, retry_after_s=RETRY_AFTER_S)
