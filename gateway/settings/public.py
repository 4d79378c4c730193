"""Whether other machines can reach a gateway, and that they then have to say who they are."""

from __future__ import annotations

import ipaddress

from gateway.settings.root import Settings
from gateway.settings.section import SettingsError


def is_public(host: str) -> bool:
    """Return whether a host to listen on can be reached from other machines."""
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def is_public_address(address: str) -> bool:
    """Return whether a gRPC address, `host:port` or `unix:/path`, can be reached from other machines; empty: there is none."""
    if not address or address.startswith("unix:"):
        return False
    return is_public(address.removeprefix("dns:///").rpartition(":")[0].strip("[]"))


def check_exposure(settings: Settings) -> None:
    """Return if others than this machine's users can't get in, or have to say who they are, or that is wanted.

    Raises:
        SettingsError: what is open, and what to do.
    """
    server = settings.server
    public = [f"server.host {server.host}"] * is_public(server.host)
    public += [f"server.grpc_address {server.grpc_address}"] * is_public_address(server.grpc_address)
    if not public or settings.auth.is_on or server.insecure:
        return
    raise SettingsError(
        f"{' and '.join(public)} can be reached from other machines, and there is no authentication. "
        "Make a key (gateway keys new NAME --scope 'tools:*') and set GATEWAY_AUTH__KEYS or [auth] keys_file to its line, "
        "or set [auth] jwks. Or listen on 127.0.0.1; or, where the network lets in nobody else, say --insecure or [server] insecure = true"
    )
