"""Who is on the other end of a connection: an address, and with client certificates a name.

Read by whoever logs, counts or limits by client. Behind a proxy the connection's peer is the proxy; `TrustedProxies` puts the
address that it was given in place of it, where the settings name the proxy. X-Forwarded-For is what anybody can write
into a request, so that of a peer that nobody named is left alone. The caps on connections (peers.py) count peers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import Any, Final

# ASGI's extension for TLS (asgi.readthedocs.io, "TLS Extension"), of which only `client_cert_name` is filled in.
TLS_EXTENSION: Final = "tls"

FORWARDED_FOR: Final = b"x-forwarded-for"
FORWARDED_PROTO: Final = b"x-forwarded-proto"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def client_address(scope: Mapping[str, Any]) -> str:
    """Return the address of who sent the request with this ASGI scope; empty where there is none, as on a Unix socket."""
    client = scope.get("client")
    return client[0] if client else ""


def client_certificate(scope: Mapping[str, Any]) -> str | None:
    """Return the subject of the certificate that the client has proved to own, as RFC 4514 writes it; None without one."""
    name: str | None = (scope.get("extensions") or {}).get(TLS_EXTENSION, {}).get("client_cert_name")
    return name


class TrustedProxies:
    """`networks`: where the proxies are whose word is taken for who their client is: `10.0.0.0/8`, `10.1.2.3`, `::1`.

    Raises:
        ValueError: one is no address and no network.
    """

    def __init__(self, networks: Collection[str] = ()) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        try:
            parsed = ipaddress.ip_address(str(address))
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)

    def apply(self, scope: Any, forwarded_for: bytes, forwarded_proto: bytes) -> None:
        """Put a trusted proxy's client, and the scheme it came by, into the scope; does nothing for any other peer's request.

        Each proxy adds its peer at the end, so the client is the last address that isn't a proxy's; what stands before
        it may be made up.
        """
        if client_address(scope) not in self:
            return
        for part in reversed(forwarded_for.decode("latin-1").split(",")):
            address = _address(part.strip())
            if address is None:
                break
            scope["client"] = (address, 0)
            if address not in self:
                break
        if (scheme := forwarded_proto.decode("latin-1").rpartition(",")[2].strip().lower()) in ("http", "https"):
            scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme


def _address(text: str) -> str | None:
    """Return the address in one part of X-Forwarded-For, which some proxies give a port; None for what is no address."""
    for candidate in (text, text.partition("]")[0].removeprefix("["), text.rpartition(":")[0]):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return None
