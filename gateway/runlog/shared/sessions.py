"""Sessions that all gateways know, and each one's home in a pool: the worker that its calls are tied to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.codec.values import json_bytes
from gateway.runlog.shared import scripts
from gateway.runlog.shared.commands import Commands
from gateway.runlog.shared.keys import Keys

_HOME = "home:"


@dataclass(frozen=True, slots=True)
class Home:
    """A worker of a pool, and the gateway that reached it. A local pool's worker is that gateway's alone."""

    gateway: str
    worker: str


@dataclass(frozen=True, slots=True)
class SharedSession:
    """One session. Times are Unix milliseconds by the server's clock; `homes` is by pool."""

    id: str
    created_at_ms: int
    used_at_ms: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    homes: Mapping[str, Home] = field(default_factory=dict)


class SharedSessions:
    """The sessions in the log. Every method raises GatewayError `log-unavailable`, and is one question to the server."""

    def __init__(self, keys: Keys, commands: Commands) -> None:
        self._keys = keys
        self._commands = commands

    async def touch(self, session_id: str, metadata: Mapping[str, str] | None, ttl_s: float) -> SharedSession:
        """Return the session, made with this metadata if there is none, and let it live for `ttl_s` from now."""
        document = b"" if not metadata else json_bytes(dict(metadata))
        reply = await self._commands.ask(*scripts.TOUCH.call, 1, self._keys.session(session_id), math.ceil(ttl_s * 1000), document)
        return _read(session_id, reply)

    async def get(self, session_id: str) -> SharedSession | None:
        """Return the session, or None where there is none (any more)."""
        reply = await self._commands.ask("HGETALL", self._keys.session(session_id))
        return _read(session_id, reply) if reply else None

    async def end(self, session_id: str) -> bool:
        """Forget a session; return whether there was one."""
        return bool(await self._commands.ask("DEL", self._keys.session(session_id)))

    async def settle(self, session_id: str, pool: str, home: Home, *, ttl_s: float, instead_of: Home | None = None) -> Home:
        """Give the session its home in a pool and return the one in force: another one, where it has one on a gateway that lives.

        `instead_of` is a home that is of no use any more, since its worker is gone. `ttl_s` counts only where the session is new.
        """
        old = b"" if instead_of is None else _write_home(instead_of)
        names = (self._keys.session(session_id), self._keys.gateways)
        values = (_HOME + pool, home.gateway, _write_home(home), old, math.ceil(ttl_s * 1000))
        return _read_home(await self._commands.ask(*scripts.SETTLE.call, 2, *names, *values))


def _write_home(home: Home) -> bytes:
    return json_bytes({"gateway": home.gateway, "worker": home.worker})


def _read_home(data: bytes) -> Home:
    return Home(**json.loads(data))


def _read(session_id: str, reply: list[bytes]) -> SharedSession:
    values = {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
    homes = {name.removeprefix(_HOME): _read_home(value) for name, value in values.items() if name.startswith(_HOME)}
    metadata = json.loads(values["metadata"]) if "metadata" in values else {}
    return SharedSession(session_id, int(values["created"]), int(values["used"]), metadata, homes)
