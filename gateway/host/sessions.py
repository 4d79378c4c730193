"""The sessions that workers have with the host: one for each worker, opened by the gateway and by nobody else.

A session's id carries 128 random bits and is told to its worker alone, so no other process can register tools, or call the host's, in a
worker's name. workers/snakepit.py opens and closes them, service.py finds them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from gateway.host.registration import RegistrationRefused, check
from gateway.rpc import snakepit_bridge_pb2 as pb


class HostSession:
    """One worker's session. `tools` is what it registered last, None until it has; `refusal` why its last attempt was refused."""

    def __init__(self, worker_id: str) -> None:
        self.id = f"gateway_{worker_id}_{secrets.token_hex(16)}"
        self.worker_id = worker_id
        self.created_at = time.time()
        self.tools: Sequence[pb.ToolRegistration] | None = None
        self.refusal: str | None = None
        self._request: pb.RegisterToolsRequest | None = None

    def register(self, request: pb.RegisterToolsRequest) -> pb.RegisterToolsResponse:
        """Take the worker's tools, all or none. Another time they take the place of the first: another process answers at its address.

        A threaded worker registers for every request: the same again costs one comparison.
        """
        if self._request is None or request.tools != self._request.tools:
            try:
                check(request)
            except RegistrationRefused as exc:
                self.refusal = str(exc)
                return pb.RegisterToolsResponse(success=False, error_message=self.refusal)
            self._request = request
            self.tools = request.tools
            self.refusal = None
        return pb.RegisterToolsResponse(success=True, tool_ids={tool.name: f"{self.id}:{tool.name}" for tool in request.tools})


class HostSessions:
    """All of them, by their ids: as many as there are workers."""

    def __init__(self) -> None:
        self._sessions: dict[str, HostSession] = {}

    def open(self, worker_id: str) -> HostSession:
        """Return a new session for a worker."""
        session = HostSession(worker_id)
        self._sessions[session.id] = session
        return session

    def close(self, session: HostSession) -> None:
        """Forget a session; idempotent."""
        self._sessions.pop(session.id, None)

    def find(self, session_id: str) -> HostSession | None:
        """Return the session of that id; None where we gave out no such id."""
        return self._sessions.get(session_id)
