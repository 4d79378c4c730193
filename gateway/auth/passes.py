"""Passes: short signed texts that stand for a credential where the credential itself must not be: session cookies, tickets.

A pass says whose it is and until when. One that was given for an API key is good as long as that key is in force, with what the
key grants now; one for a JWT carries what the token granted, until the token's own expiry. Signed with HMAC-SHA-256
(itsdangerous) by the gateway's secret; gateways that are to take each other's passes need the same one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from itsdangerous import BadData, URLSafeTimedSerializer

from gateway.auth.keys import CALLER_PREFIX, KeyRing
from gateway.auth.scopes import known_scopes, words_of
from gateway.caller import Caller
from gateway.errors import GatewayError

PASS_LIMIT = 8 * 1024


class Pass(NamedTuple):
    """What a pass says: its caller, what else it was given with, and when it was signed, in Unix seconds."""

    caller: Caller
    more: Mapping[str, Any]
    signed_at: float


class Passes:
    """Writes and reads the passes of one purpose. `secret` None: one of this process's own."""

    def __init__(self, purpose: str, secret: str | None, keys: KeyRing) -> None:
        self._keys = keys
        self._signer = URLSafeTimedSerializer(
            secret or secrets.token_urlsafe(32), salt=f"snakepit.gateway.{purpose}", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def write(self, caller: Caller, more: Mapping[str, Any], expires_at: float | None = None) -> str:
        """Return a pass for a caller; it is good until `expires_at` (Unix seconds) and never longer than what the caller came with.

        Raises:
            GatewayError: `invalid-credential`: the caller's key was taken out of force since it came with it.
        """
        until = min((moment for moment in (caller.expires_at, expires_at) if moment is not None), default=None)
        mark = self._keys.mark(caller.id)
        if mark is None and caller.id.startswith(CALLER_PREFIX):
            raise _not_in_force()
        right = {"scopes": words_of(caller.grants)} if mark is None else {"key": mark}
        text = self._signer.dumps({"id": caller.id, "until": until, **right, "more": dict(more)})
        return text if isinstance(text, str) else text.decode()

    def read(self, text: str) -> Pass:
        """Return what a pass says.

        Raises:
            GatewayError: `invalid-credential`: it is not ours, or what it was given for is not in force any more; `auth-expired`.
        """
        if len(text) > PASS_LIMIT:
            raise _not_ours()
        try:
            document, signed_at = self._signer.loads(text, return_timestamp=True)
            caller = self._caller(document)
        except (BadData, KeyError, TypeError, ValueError) as exc:
            raise _not_ours() from exc
        if caller is None:
            raise _not_in_force()
        if caller.expired:
            raise GatewayError("auth-expired", "The session or ticket has expired")
        return Pass(caller, document["more"], signed_at.timestamp())

    def _caller(self, document: Mapping[str, Any]) -> Caller | None:
        if "key" not in document:
            return Caller(document["id"], known_scopes(document["scopes"]), document["until"])
        caller = self._keys.marked(document["id"], document["key"])
        return None if caller is None else replace(caller, expires_at=document["until"])


def _not_in_force() -> GatewayError:
    return GatewayError("invalid-credential", "The key that this was given for is not in force any more")


def _not_ours() -> GatewayError:
    return GatewayError("invalid-credential", "The session or ticket was not given by this gateway, or was changed")
