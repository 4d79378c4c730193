"""Authentication as the settings want it: keys, the identity provider, passes and tickets, put together for both front doors.

Made by app.py where authentication is on; what each part does stands in gateway/auth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial

from gateway.auth.authenticator import Authenticator
from gateway.auth.jwks import Jwks
from gateway.auth.jwt import TokenRules, TokenVerifier
from gateway.auth.keys import ApiKey, KeyRing, read_keys
from gateway.auth.passes import Passes
from gateway.auth.tickets import Tickets, UsedTickets
from gateway.endpoints.authentication import Authentication
from gateway.endpoints.cookie import SessionCookie
from gateway.runs.hub import Hub
from gateway.settings import AuthSettings, SettingsError


class Access:
    """See the module. `run` keeps the identity provider's keys fresh."""

    def __init__(self, settings: AuthSettings, allowed_origins: Collection[str]) -> None:
        """`allowed_origins`: whose pages a session cookie counts for, besides ours.

        Raises:
            SettingsError: the keys can't be read, and why.
        """
        self.keys = KeyRing(_load_keys(settings))
        self._jwks: Jwks | None = None
        tokens: TokenVerifier | None = None
        if settings.jwks is not None and settings.issuer is not None and settings.audience is not None:
            self._jwks = Jwks(settings.jwks, refresh_s=settings.jwks_refresh_s)
            rules = TokenRules(settings.issuer, settings.audience, settings.algorithms, settings.leeway_s, settings.scope_claim)
            tokens = TokenVerifier(self._jwks, rules)
        secret = None if settings.secret is None else settings.secret.get_secret_value()
        self.authenticator = Authenticator(self.keys, tokens)
        self.sessions = Passes("session", secret, self.keys)
        self.tickets = Tickets(secret, self.keys)
        self.cookie = SessionCookie(frozenset(allowed_origins), settings.cookie_secure)

    def admission(self, hub: Hub) -> Authentication:
        """Return what admits callers to this hub's gateway; what was used once is known to all gateways of its log."""
        uses = UsedTickets() if hub.others is None else hub.others
        return Authentication(self.authenticator, self.sessions, self.cookie, self.tickets, uses, hub.look_up)

    def prepare(self, settings: AuthSettings) -> Callable[[], None]:
        """Read the keys again, and return what has them in force from then on, in one step.

        Raises:
            SettingsError: they can't be read, and why; those that are in force stay.
        """
        return partial(self.keys.replace, _load_keys(settings))

    async def run(self) -> None:
        """Keep the identity provider's keys fresh until cancelled."""
        if self._jwks is None:
            await asyncio.get_running_loop().create_future()
        else:
            await self._jwks.run()


def _load_keys(settings: AuthSettings) -> list[ApiKey]:
    """Return the keys of the file and of the settings."""
    texts = [] if not settings.keys else [("auth.keys", settings.keys)]
    if settings.keys_file is not None:
        try:
            texts.append((str(settings.keys_file), settings.keys_file.read_text()))
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"auth.keys_file: {exc}") from exc
    keys: dict[str, ApiKey] = {}
    for source, text in texts:
        try:
            found = read_keys(text)
        except ValueError as exc:
            raise SettingsError(f"{source}: {exc}") from exc
        if doubled := [key.name for key in found if key.name in keys]:
            raise SettingsError(f"{source}: the name {doubled[0]!r} is in auth.keys as well")
        keys |= {key.name: key for key in found}
    return list(keys.values())
