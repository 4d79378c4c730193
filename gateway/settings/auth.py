"""`[auth]`: who callers are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, SecretStr, model_validator

from gateway.settings.section import Seconds, Section

# Of tokens: asymmetric ones alone. With a symmetric one, who knows the public key could sign (RFC 8725 §2.1).
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


class AuthSettings(Section):
    """`[auth]`: who may come in. `auto`: authentication is on where there are keys or an identity provider."""

    mode: Literal["auto", "on", "off"] = "auto"
    # API keys, a line each: NAME sha256:HASH SCOPE…; `gateway keys new` makes one. In a file, or here (`;` ends a line, too).
    keys_file: Path | None = None
    keys: str = ""
    # The JWKS of an identity provider, a URL or a file, and what its tokens have to say.
    jwks: str | None = None
    issuer: str | None = None
    audience: str | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = get_args(Algorithm)
    leeway_s: Annotated[int, Field(ge=0, le=600)] = 30
    scope_claim: str = "scope"
    jwks_refresh_s: Seconds = 300.0
    # Signs session cookies and tickets; gateways that share a log need the same one. None: one of this process's own.
    secret: SecretStr | None = None
    # How long a session cookie lives; whether it is for HTTPS alone, None: as the request came.
    cookie_ttl_s: Seconds = 12 * 3600.0
    cookie_secure: bool | None = None

    @property
    def is_on(self) -> bool:
        """Whether callers have to say who they are."""
        return self.mode == "on" or (self.mode == "auto" and self._has_callers)

    @property
    def _has_callers(self) -> bool:
        return bool(self.keys_file or self.keys or self.jwks)

    @model_validator(mode="after")
    def _is_complete(self) -> AuthSettings:
        if self.mode == "on" and not self._has_callers:
            raise ValueError("mode is 'on', but nobody could come in: there are no keys_file, keys or jwks")
        if self.jwks is not None and not (self.issuer and self.audience):
            raise ValueError("jwks needs issuer and audience: a token that is for somebody else must not do")
        if self.secret is not None and len(self.secret.get_secret_value()) < 32:
            raise ValueError("secret has less than 32 characters; `openssl rand -base64 32` makes one")
        return self
