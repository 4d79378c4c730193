"""What a tool may know about the call it serves: its session, its caller's metadata, its time.

Made by servicer.py for each execution and given to the adapter by set_session_context(); the adapter's
`cancelled`, `deadline` and `session_id` read it. Safe to read from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.runtime.origin import Origin


class HostTools(Protocol):
    """The tools that a host offers to Python, Snakepit's or the gateway, called from a tool's thread. Implemented by hosttools.py."""

    def exposed(self, session_id: str) -> dict[str, Any]:
        """Return the host's tools by name; none if it can't be asked."""

    def execute(self, session_id: str, name: str, arguments: Mapping[str, Any], timeout_s: float | None) -> Any:
        """Call one and return its result, waiting for it.

        Raises:
            RuntimeError: the tool failed or the host can't be reached.
        """


class SessionContext:
    """The session context of one execution, with Snakepit's names.

    `session_id` is empty where the caller has no session. `request_metadata` is the request's metadata. `origin` says of which run,
    request and trace it is.
    """

    def __init__(
        self,
        session_id: str,
        request_metadata: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
        host: HostTools | None = None,
        origin: Origin = Origin(),  # noqa: B008  immutable
    ) -> None:
        self.session_id = session_id
        self.request_metadata: dict[str, str] = dict(request_metadata or {})
        self._ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._host = host
        self.origin = origin
        self._elixir_tools: dict[str, Any] | None = None
        # Set once, by the execution, on the event loop.
        self.cancelled = False

    @property
    def deadline(self) -> float | None:
        """Seconds left until the caller's deadline, 0.0 when it has passed; None without one."""
        return None if self._ends_at_s is None else max(0.0, self._ends_at_s - time.monotonic())

    @property
    def elixir_tools(self) -> dict[str, Any]:
        """The host's own tools by name, asked for at the first use; empty without a host."""
        if self._elixir_tools is None:
            self._elixir_tools = self._host.exposed(self.session_id) if self._host is not None else {}
        return self._elixir_tools

    def call_elixir_tool(self, tool_name: str, **arguments: Any) -> Any:
        """Call one of the host's own tools and wait for its result. From an async tool, call it with `asyncio.to_thread`.

        Raises:
            RuntimeError: there is no host, or the tool failed.
        """
        if self._host is None:
            raise RuntimeError(f"can't call {tool_name}: this worker runs without a host: name the tool in the gateway's `host_tools`")
        return self._host.execute(self.session_id, tool_name, arguments, self.deadline)

    def cleanup(self) -> None:
        """Forget what was cached; the session itself belongs to the caller."""
        self._elixir_tools = None
