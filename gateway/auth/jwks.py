"""The public keys of an identity provider (JWKS, RFC 7517), kept fresh: from a URL, or from a file.

`run` loads them again every `refresh_s`; `refresh_for` does when a token names a key that isn't known, at most every
`retry_s`, so that nobody can make us ask the provider by sending nonsense. While the provider can't be reached the keys that
were loaded last stay in force. Used by jwt.py.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

VerificationKey = RSAKey | ECKey | OKPKey

SIZE_LIMIT_BYTES = 256 * 1024
KEYS_LIMIT = 100
FETCH_TIMEOUT_S = 5.0

_log = structlog.get_logger("gateway.auth")


class Jwks:
    """The keys. `source` is an http(s) URL or a file's path; `changed` is called when other keys are in force than before."""

    def __init__(
        self,
        source: str,
        *,
        refresh_s: float = 300.0,
        retry_s: float = 10.0,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        # As logs have it: without a password that may be in a URL.
        self._shown = source.rpartition("@")[2]
        self._refresh_s = refresh_s
        self._retry_s = retry_s
        self._clock = clock
        self.changed = changed
        self._documents: Sequence[Mapping[str, Any]] = []
        self._keys: dict[str | None, VerificationKey] = {}
        self._tried_at = float("-inf")
        # One load at a time; who waits for it looks again at what it brought.
        self._loading = asyncio.Lock()
        self.loaded = False

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str | None) -> VerificationKey | None:
        """Return the key of that id; for a token that names none, the only key that there is."""
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def run(self) -> None:
        """Load the keys, and again every so often, until cancelled. Never fails: what is wrong is logged."""
        while True:
            await self.load()
            # What was never loaded is needed soon.
            await asyncio.sleep(self._refresh_s if self.loaded else self._retry_s)

    async def refresh_for(self, kid: str | None) -> VerificationKey | None:
        """Return the key of that id, after a look at the source unless that was done lately."""
        async with self._loading:
            found = self.find(kid)
            if found is not None or self._clock() - self._tried_at < self._retry_s:
                return found
            await self._load()
        return self.find(kid)

    async def load(self) -> bool:
        """Load the keys now; return whether they could be. Those that were there stay where they couldn't."""
        async with self._loading:
            return await self._load()

    async def _load(self) -> bool:
        self._tried_at = self._clock()
        try:
            documents = read_key_set(await self._fetch())
            keys = _verification_keys(documents)
        except (ValueError, OSError, httpx.HTTPError, httpx.InvalidURL) as exc:
            _log.warning("keys of the identity provider not loaded", source=self._shown, reason=str(exc) or type(exc).__name__)
            return False
        if documents != self._documents:
            self._documents, self._keys = documents, keys
            _log.info("keys of the identity provider loaded", source=self._shown, keys=len(keys))
            self.changed()
        self.loaded = True
        return True

    async def _fetch(self) -> bytes:
        if not self._source.startswith(("http://", "https://")):
            return await asyncio.to_thread(_read_file, Path(self._source))
        # No redirects: where the keys come from is for the operator to say.
        async with (
            asyncio.timeout(FETCH_TIMEOUT_S),
            httpx.AsyncClient(timeout=FETCH_TIMEOUT_S) as client,
            client.stream("GET", self._source, headers={"Accept": "application/jwk-set+json, application/json"}) as response,
        ):
            if response.status_code != 200:
                raise ValueError(f"the answer was {response.status_code}")
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > SIZE_LIMIT_BYTES:
                    raise ValueError(f"more than {SIZE_LIMIT_BYTES} bytes")
            return body


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(SIZE_LIMIT_BYTES)


def read_key_set(text: bytes) -> Sequence[Mapping[str, Any]]:
    """Return the keys of a JWKS document that signatures could be checked with, as they are there.

    Raises:
        ValueError: it is no JWKS document, or has none.
    """
    document = json.loads(text)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no JWKS: an object with a list of `keys`")
    usable = [entry for entry in entries if isinstance(entry, dict) and entry.get("use", "sig") == "sig" and "d" not in entry]
    asymmetric = [entry for entry in usable if entry.get("kty") in ("RSA", "EC", "OKP")]
    if not asymmetric:
        raise ValueError("it has no public key for signatures")
    return asymmetric[:KEYS_LIMIT]


def _verification_keys(documents: Sequence[Mapping[str, Any]]) -> dict[str | None, VerificationKey]:
    """Return the keys by their id. One that can't be read, of a kind that is yet unknown, costs only itself (RFC 7517 §5)."""
    keys: dict[str | None, VerificationKey] = {}
    for document in documents:
        try:
            key = JWKRegistry.import_key(dict(document))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            kid = document.get("kid")
            keys[kid if isinstance(kid, str) else None] = key
    if not keys:
        raise ValueError("none of its keys can be read")
    return keys
