"""`[host]`: what workers find in the gateway, the listener that Snakepit's call back and the bounds of the host tools."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from gateway.settings.section import Seconds, Section


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
    """`[host]`: where workers of Snakepit's find the gateway as their host; and what `host_tools` may take."""

    # It listens where there is a pool of them. Plaintext, and for workers only; of another machine's workers it is the address that
    # their `--elixir-address` names.
    address: Annotated[str, AfterValidator(_host_and_port)] = "127.0.0.1:0"
    # A call of a host tool has this time, its waiting included; so many run at once.
    tool_timeout_s: Seconds = 30.0
    tools_at_once: Annotated[int, Field(ge=1, le=1000)] = 16
