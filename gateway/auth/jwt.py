"""JWTs of an identity provider: the signature, then issuer, audience and time, and what of the claims is a caller.

Only asymmetric algorithms: with a symmetric one a public key could be made a secret (RFC 8725 §2.1). A token that was good
once is remembered by its hash until it expires or the provider's keys change, so that a signature is checked once. Sources: RFC
7519, RFC 8725 (best practices), RFC 9068 (`scope` in access tokens).
"""

from __future__ import annotations

import binascii
import hashlib
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError

from gateway.auth.jwks import Jwks, VerificationKey
from gateway.auth.scopes import known_scopes
from gateway.caller import Caller
from gateway.errors import GatewayError

REMEMBERED_LIMIT = 10_000
SUBJECT_LIMIT = 200


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token has to say. `algorithms`: asymmetric ones, whatever the token wants.

    `leeway_s`: how far the provider's clock may be from ours; `scope_claim`: where the scopes stand.
    """

    issuer: str
    audience: str
    algorithms: Sequence[str]
    leeway_s: int = 30
    scope_claim: str = "scope"


class TokenVerifier:
    """Checks tokens against the keys of `jwks`."""

    def __init__(self, jwks: Jwks, rules: TokenRules, *, clock: Callable[[], float] = time.time) -> None:
        self._jwks = jwks
        self._rules = rules
        self._clock = clock
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=rules.leeway_s,
            iss={"essential": True, "value": rules.issuer},
            aud={"essential": True, "value": rules.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        # Those that were good, by the hash of their text; the oldest goes when there are too many.
        self._remembered: dict[bytes, Caller] = {}
        jwks.changed = self._remembered.clear

    def verify_now(self, token: str) -> Caller | None:
        """Return who comes with a token; None where its key is not known here, and might be by `verify`.

        Raises:
            GatewayError: `invalid-credential`, and why; `auth-unavailable`.
        """
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._remembered.get(digest)
        if caller is not None:
            if caller.expires_at is not None and caller.expires_at > self._clock():
                return caller
            del self._remembered[digest]
        key = self._jwks.find(self._kid(token))
        return None if key is None else self._remember(digest, self._check(token, key))

    async def verify(self, token: str) -> Caller:
        """Return who comes with a token, having looked for its key at the provider where it isn't known.

        Raises:
            GatewayError: as `verify_now`.
        """
        caller = self.verify_now(token)
        if caller is not None:
            return caller
        key = await self._jwks.refresh_for(self._kid(token))
        if key is not None:
            return self._remember(hashlib.sha256(token.encode()).digest(), self._check(token, key))
        if not self._jwks.loaded:
            raise GatewayError("auth-unavailable", "The identity provider's keys could not be loaded yet", retry_after_s=5)
        raise _invalid("it was signed with a key that the identity provider does not have (any more)")

    def _remember(self, digest: bytes, caller: Caller) -> Caller:
        if len(self._remembered) >= REMEMBERED_LIMIT:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = caller
        return caller

    def _kid(self, token: str) -> str | None:
        """Return the key's id that an unchecked token names, having refused its algorithm where that is not allowed."""
        try:
            head = token.split(".", 1)[0]
            header = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        except (ValueError, binascii.Error, RecursionError) as exc:
            raise _invalid("it can't be read") from exc
        if not isinstance(header, dict) or header.get("alg") not in self._rules.algorithms:
            raise _invalid(f"its algorithm is not allowed; allowed: {', '.join(self._rules.algorithms)}")
        kid = header.get("kid")
        return kid if isinstance(kid, str) else None

    def _check(self, token: str, key: VerificationKey) -> Caller:
        try:
            claims = jwt.decode(token, key, algorithms=self._rules.algorithms).claims
            self._claims.validate(claims)
        except ExpiredTokenError as exc:
            raise _invalid("it has expired") from exc
        except (InvalidClaimError, MissingClaimError) as exc:
            raise _invalid(f"its claim {exc.claim!r} is missing or has a wrong value") from exc
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as exc:
            raise _invalid("its signature is not good") from exc
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        subject = claims["sub"]
        if not (0 < len(subject) <= SUBJECT_LIMIT and subject.isprintable()):
            raise _invalid(f"its subject is not 1 to {SUBJECT_LIMIT} printable characters")
        said = claims.get(self._rules.scope_claim, "")
        words = (
            said.split() if isinstance(said, str) else [word for word in said if isinstance(word, str)] if isinstance(said, list) else []
        )
        return Caller(f"jwt:{subject}", known_scopes(words), float(claims["exp"]) + self._rules.leeway_s)


def _invalid(why: str) -> GatewayError:
    return GatewayError("invalid-credential", f"The token is not valid: {why}")
