"""Sessions: client-chosen ids that pin their calls to one worker, and the tools that were registered under them.

Owned by the app, used by both front doors. A session lives for `ttl_s` after its last use; at most `limit` are
kept. Over HTTP any use creates it; over gRPC it has to be initialised first, as in Snakepit's BridgeServer
(contract §5). Which worker a session is tied to is the pool's knowledge, not this module's.

Ids are each caller's own: two callers who choose the same id have two sessions. `Session.id` is what its caller calls it;
`Session.key` is what everything behind the front doors does, workers included, which keep a session's state by it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.caller import ANONYMOUS, Caller
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
    """One session. `key`: see the module. `created_at` and `last_used_at` are Unix seconds; `tools` at most TOOLS_LIMIT."""

    id: str
    key: str
    created_at: float
    last_used_at: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    tools: dict[str, RegisteredTool] = field(default_factory=dict)


class Sessions:
    """The sessions of this gateway, least recently used first. `on_end` is told the key of each one that is over."""

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

    def use(self, session_id: str, caller: Caller, metadata: Mapping[str, str] | None = None) -> Session:
        """Return the caller's session, made if there is none, and begin its time to live anew.

        A full table drops its least recently used session.

        Raises:
            GatewayError: `invalid-session` for an id outside ID_RULE.
        """
        now = self._clock()
        self._expire(now)
        key = session_key(session_id, caller.id)
        session = self._sessions.get(key)
        if session is None:
            check_session_id(session_id)
            session = self._sessions[key] = Session(session_id, key, now, now, dict(metadata or {}))
            if len(self._sessions) > self._limit:
                self._end(next(iter(self._sessions)))
        session.last_used_at = now
        self._sessions.move_to_end(key)
        return session

    def create(self, session_id: str | None, caller: Caller, metadata: Mapping[str, str] | None = None) -> Session:
        """Return a new session of the caller's, or the one with that id; None: a new id."""
        return self.use(session_id if session_id is not None else f"s_{secrets.token_hex(10)}", caller, metadata)

    def get(self, session_id: str, caller: Caller, *, touch: bool = False) -> Session | None:
        """Return the caller's session, or None where it has none (any more). `touch` begins its time to live anew."""
        self._expire(self._clock())
        key = session_key(session_id, caller.id)
        session = self._sessions.get(key)
        if session is not None and touch:
            session.last_used_at = self._clock()
            self._sessions.move_to_end(key)
        return session

    def end(self, session_id: str, caller: Caller) -> bool:
        """Forget a session of the caller's; return whether there was one."""
        return self._end(session_key(session_id, caller.id))

    def _end(self, key: str) -> bool:
        if self._sessions.pop(key, None) is None:
            return False
        self._on_end(key)
        return True

    def _expire(self, now: float) -> None:
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if now - oldest.last_used_at < self._ttl_s:
                return
            self._end(oldest.key)


def session_key(session_id: str, caller_id: str) -> str:
    """Return what a caller's session is called behind the front doors: no other caller's is called so."""
    return session_id if caller_id == ANONYMOUS.id else f"{session_id}~{_mark(caller_id)}"


def session_id_of(key: str, caller_id: str) -> str:
    """Return what the caller calls a session, by its key."""
    return key if caller_id == ANONYMOUS.id else key.removesuffix(f"~{_mark(caller_id)}")


def _mark(caller_id: str) -> str:
    # As long for everybody, so that it is always the end that tells callers apart, whatever ids they choose.
    return hashlib.sha256(caller_id.encode()).hexdigest()[:24]


def check_session_id(session_id: str) -> None:
    """Return if the id is valid.

    Raises:
        GatewayError: `invalid-session`, saying the rule.
    """
    if _VALID_ID.fullmatch(session_id) is None:
        detail = f"{session_id[:40]!r} is no session id; allowed: {ID_RULE}"
        raise GatewayError("invalid-session", detail, errors=[FieldError("_session", f"allowed: {ID_RULE}")])
