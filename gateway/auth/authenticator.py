"""From a credential's text to its caller: an API key or a JWT, told apart by their form.

Asked by both front doors. `check_now` answers nearly always; only a token whose key is not known yet is worth a wait.
"""

from __future__ import annotations

from gateway.auth.jwt import TokenVerifier
from gateway.auth.keys import KeyRing
from gateway.caller import Caller
from gateway.errors import GatewayError

CREDENTIAL_LIMIT = 16 * 1024


class Authenticator:
    """`keys` may be empty, `tokens` None: there is no identity provider."""

    def __init__(self, keys: KeyRing, tokens: TokenVerifier | None = None) -> None:
        self.keys = keys
        self._tokens = tokens

    def check_now(self, credential: str) -> Caller | None:
        """Return who comes with a credential; None where that can't be said without a wait: ask `check` then.

        Raises:
            GatewayError: `invalid-credential`; `auth-unavailable`.
        """
        if not 0 < len(credential) <= CREDENTIAL_LIMIT or not credential.isascii():
            raise GatewayError("invalid-credential", f"A credential is 1 to {CREDENTIAL_LIMIT} ASCII characters")
        # A JWT is three parts with dots between them; no key has a dot.
        if self._tokens is not None and credential.count(".") == 2:
            return self._tokens.verify_now(credential)
        caller = self.keys.find(credential)
        if caller is None:
            raise GatewayError("invalid-credential", "The key is not known")
        return caller

    async def check(self, credential: str) -> Caller:
        """Return who comes with a credential.

        Raises:
            GatewayError: as `check_now`.
        """
        caller = self.check_now(credential)
        if caller is None:
            assert self._tokens is not None, "a key is known, or isn't"
            caller = await self._tokens.verify(credential)
        return caller
