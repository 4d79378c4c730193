"""`[host]`: the listener that Snakepit's workers call back."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from gateway.settings.section import Section


def _host_and_port(text: str) -> str:
    """Return an address as it is.

    Raises:
        ValueError: it is not `host:port`.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port, such as 127.0.0.1:0 (0: a free port) or 0.0.0.0:50100")
    return text


class HostSettings(Section):
    """`[host]`: where workers of Snakepit's find the gateway as their host. It listens where there is a pool of them."""

    # Plaintext, and for workers only; of another machine's workers it is the address that their `--elixir-address` names.
    address: Annotated[str, AfterValidator(_host_and_port)] = "127.0.0.1:0"
