"""Sessions: client-chosen ids that pin their calls to one worker, and the tools that were registered under them.

Owned by the app, used by both front doors. A session lives for `ttl_s` after its last use; at most `limit` are
kept. Over HTTP any use creates it; over gRPC it has to be initialised first, as in Snakepit's BridgeServer
(contract §5). Which worker a session is tied to is the pool's knowledge, not this module's.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.errors import FieldError, GatewayError

_VALID_ID = re.compile(r"[A-Za-z0-9._:~@-]{1,128}")
ID_RULE = "1 to 128 of the characters A-Z a-z 0-9 . _ : ~ @ -"
TOOLS_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class RegisteredTool:
    """A tool that a gRPC client registered for its session: on which worker it runs, and whether it streams."""

    name: str
    worker_id: str
    supports_streaming: bool


@dataclass(slots=True)
class Session:
    """One session. `created_at` and `last_used_at` are Unix seconds; `tools` at most TOOLS_LIMIT."""

    id: str
    created_at: float
    last_used_at: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    tools: dict[str, RegisteredTool] = field(default_factory=dict)


class Sessions:
    """The sessions of this gateway, least recently used first. `on_end` is told the id of each one that is over."""

    def __init__(
        self,
        *,
        ttl_s: float = 3600.0,
        limit: int = 10_000,
        on_end: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ttl_s = ttl_s
        self._limit = limit
        self._on_end = on_end
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def use(self, session_id: str, metadata: Mapping[str, str] | None = None) -> Session:
        """Return the session, made if there is none, and begin its time to live anew.

        A full table drops its least recently used session.

        Raises:
            GatewayError: `invalid-session` for an id outside ID_RULE.
        """
        now = self._clock()
        self._expire(now)
        session = self._sessions.get(session_id)
        if session is None:
            check_session_id(session_id)
            session = self._sessions[session_id] = Session(session_id, now, now, dict(metadata or {}))
            if len(self._sessions) > self._limit:
                self.end(next(iter(self._sessions)))
        session.last_used_at = now
        self._sessions.move_to_end(session_id)
        return session

    def create(self, session_id: str | None = None, metadata: Mapping[str, str] | None = None) -> Session:
        """Return a new session, or the one with that id."""
        return self.use(session_id if session_id is not None else f"s_{secrets.token_hex(10)}", metadata)

    def get(self, session_id: str, *, touch: bool = False) -> Session | None:
        """Return the session, or None where there is none (any more). `touch` begins its time to live anew."""
        self._expire(self._clock())
        session = self._sessions.get(session_id)
        if session is not None and touch:
            session.last_used_at = self._clock()
            self._sessions.move_to_end(session_id)
        return session

    def end(self, session_id: str) -> bool:
        """Forget a session; return whether there was one."""
        if self._sessions.pop(session_id, None) is None:
            return False
        self._on_end(session_id)
        return True

    def _expire(self, now: float) -> None:
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if now - oldest.last_used_at < self._ttl_s:
                return
            self.end(oldest.id)


def check_session_id(session_id: str) -> None:
    """Return if the id is valid.

    Raises:
        GatewayError: `invalid-session`, saying the rule.
    """
    if _VALID_ID.fullmatch(session_id) is None:
        detail = f"{session_id[:40]!r} is no session id; allowed: {ID_RULE}"
        raise GatewayError("invalid-session", detail, errors=[FieldError("_session", f"allowed: {ID_RULE}")])
