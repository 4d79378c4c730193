"""Where a worker listens: the address forms of the settings, and what they resolve to.

Parsed by lane.py when a channel is made, resolved by dialer.py at each dial, so a changed DNS answer is seen at
the next reconnect. The forms are gRPC's (naming.md).
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (name or literal) and a port."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        """What `:authority` says."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def resolve(self) -> list[tuple[str, int]]:
        """Return the numeric addresses behind the host, each once, in the resolver's order.

        Raises:
            OSError: the name doesn't resolve.
        """
        found = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys((str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found))


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket file."""

    path: str

    @property
    def authority(self) -> str:
        """What `:authority` says; a path is not a valid one, and gRPC's own clients say this."""
        return "localhost"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read `host:port`, `[v6]:port`, `dns:///name:port`, `dns:name:port`, `unix:path` or `unix:///path`.

    Raises:
        ValueError: it is none of these.
    """
    scheme, colon, rest = text.partition(":")
    if scheme == "unix" and colon:
        path = rest.removeprefix("//") if rest.startswith("///") else rest
        if path:
            return UnixAddress(path)
    host, _, port = text.removeprefix("dns:///").removeprefix("dns:").rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host and "/" not in host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
        return TcpAddress(host, int(port))
    raise ValueError(f"not an address: {text!r}; use host:port, dns:///name:port or unix:/path")
