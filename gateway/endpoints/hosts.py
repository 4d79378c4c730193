"""Which hosts this server answers for: the defence against DNS rebinding, and against a proxy that misroutes.

Asked by exposure.py for the Host field of every request. A page on `evil.example` may have that name point to 127.0.0.1
once it is loaded, and is of one origin with what answers there then; the Host field still says `evil.example`.
Source: RFC 9110 §7.2 and §7.4 (421), RFC 9112 §3.2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from gateway.errors import GatewayError

# What a listener on loopback is called. Whoever owns a name under .localhost owns this machine (RFC 6761 §6.3).
LOOPBACK_HOSTS: Sequence[str] = ("localhost", "*.localhost", "127.0.0.1", "[::1]")

_FIELD = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._~%!$&'()*+,;=-]+)(?::([0-9]{0,5}))?")
_PATTERN = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")
# Fields that were let in lately are not looked at again; a client that makes up many costs itself a look each.
_KNOWN_LIMIT = 1000


class HostRule:
    """The hosts that are answered for: see `parse_pattern`. None at all, or `*`: every host."""

    __slots__ = ("_exact", "_known", "_suffixes")

    def __init__(self, allowed: Collection[str] = ()) -> None:
        self._exact = frozenset(pattern for pattern in allowed if not pattern.startswith("*"))
        self._suffixes = tuple(pattern[1:] for pattern in allowed if pattern.startswith("*")) or ("" if not allowed else ())
        self._known: set[bytes] = set()

    def check(self, field: bytes) -> None:
        """Return if a request with this Host field is for us.

        Raises:
            GatewayError: `host-not-allowed`; `invalid-request` for what is no host.
        """
        if field in self._known:
            return
        name, port = split_host(field)
        exact, suffixes = self._exact, self._suffixes
        if not (name in exact or f"{name}:{port}" in exact or name.endswith(suffixes) or f"{name}:{port}".endswith(suffixes)):
            raise GatewayError("host-not-allowed", f"This server does not answer for the host {name[:100]!r}; see server.allowed_hosts")
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known.add(field)


def split_host(field: bytes) -> tuple[str, str]:
    """Return the name, in lower case and without the root's dot, and the port of a Host field; no port: an empty text.

    Raises:
        GatewayError: `invalid-request`.
    """
    match = _FIELD.fullmatch(field.decode("latin-1").lower())
    if match is None or (match[1].startswith("[") and not _is_ipv6(match[1][1:-1])):
        raise GatewayError("invalid-request", "The Host field is not a host")
    return match[1].removesuffix("."), match[2] or ""


def parse_pattern(text: str) -> str:
    """Return a host of the settings in the form that HostRule takes: `name`, `name:port`, `*.domain`, `[::1]` or `*`.

    Without a port all ports are meant. `*.domain` is any name below the domain, and not the domain itself.

    Raises:
        ValueError: it has none of these forms.
    """
    pattern = text.strip().lower()
    address = pattern.partition("]")[0].removeprefix("[")
    if _PATTERN.fullmatch(pattern) is None or (pattern.startswith("[") and not _is_ipv6(address)):
        raise ValueError(f"{text!r} is not a host; write `name`, `name:port`, `*.domain`, `[::1]` or `*`")
    return pattern


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
