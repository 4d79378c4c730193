"""API keys: long random texts that an operator gives to programs, kept as their SHA-256 only.

A line for each key, in a file or in the environment: `NAME HASH SCOPE…`, such as
`ci sha256:9f86d081… tools:train pools:gpu`; empty lines and lines that begin with `#` are passed over.

Why a bare SHA-256: a slow hash is for secrets that people choose. Ours have 256 random bits, so that nobody finds one by
trying, however fast; and a lookup in each request has to be cheap. Why a dict and no loop of constant-time comparisons: what
is compared is the hash of what was sent, never the secret. How long a lookup takes may say something of stored hashes near
to it, but nobody can make keys whose hashes come nearer, and a hash is no key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.auth.scopes import read_scopes
from gateway.caller import Caller, Grants

# So that a leaked one is known for what it is, by people and by secret scanners.
PREFIX = "gw_"
HASH_PREFIX = "sha256:"
# Of the ids of those who come with a key, and of nobody else's.
CALLER_PREFIX = "key:"
KEYS_LIMIT = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as it is stored: its name, which is its caller's, the digest of its text, what it grants."""

    name: str
    digest: bytes = field(repr=False)
    grants: Grants

    @property
    def caller(self) -> Caller:
        """Who comes with it."""
        return Caller(f"{CALLER_PREFIX}{self.name}", self.grants)


class KeyRing:
    """The keys in force. `replace` changes all of them in one step."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._callers: dict[bytes, Caller] = {}
        self._digests: dict[str, bytes] = {}
        self.replace(keys)

    def __len__(self) -> int:
        return len(self._callers)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Have these keys in force from now on, and no others; synchronous."""
        keys = list(keys)
        self._callers, self._digests = {key.digest: key.caller for key in keys}, {key.caller.id: key.digest for key in keys}

    def find(self, secret: str) -> Caller | None:
        """Return who comes with this key; None where it is none of ours."""
        return self._callers.get(hashlib.sha256(secret.encode()).digest())

    def mark(self, caller_id: str) -> str | None:
        """Return what stands for a caller's key in a pass: not its hash; None where it has none here."""
        digest = self._digests.get(caller_id)
        return None if digest is None else hashlib.sha256(digest).hexdigest()[:16]

    def marked(self, caller_id: str, mark: str) -> Caller | None:
        """Return the caller if its key is the one that the mark was made of, with what it grants now; None where it isn't any more."""
        return self._callers[self._digests[caller_id]] if self.mark(caller_id) == mark else None


def new_secret() -> str:
    """Return a fresh key: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """Return a key as it is stored."""
    return HASH_PREFIX + hashlib.sha256(secret.encode()).hexdigest()


def line_of(name: str, secret: str, scopes: Sequence[str]) -> str:
    """Return the line that stores a key.

    Raises:
        ValueError: what is wrong with the name or a scope.
    """
    words = [name, hash_of(secret), *scopes]
    _read(words)
    return " ".join(words)


def read_keys(text: str) -> list[ApiKey]:
    """Return the keys that these lines say; `;` ends a line, too, for the environment's sake.

    Raises:
        ValueError: what is wrong, by its line and its name; never a part of a hash, which might be a key that somebody put there.
    """
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(re.split(r"[\n;]", text), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = _read(line.split())
            if key.name in keys:
                raise ValueError(f"the name {key.name!r} is there twice")
        except ValueError as exc:
            raise ValueError(f"line {number}: {exc}") from exc
        keys[key.name] = key
    if len({key.digest for key in keys.values()}) < len(keys):
        raise ValueError("two names have the same key")
    if len(keys) > KEYS_LIMIT:
        raise ValueError(f"{len(keys)} keys, the limit is {KEYS_LIMIT}")
    return list(keys.values())


def _read(words: Sequence[str]) -> ApiKey:
    name, *rest = words
    if not rest:
        raise ValueError("a key is written NAME sha256:HASH SCOPE…; `gateway keys new NAME --scope …` makes one")
    if _NAME.fullmatch(name) is None:
        raise ValueError("a key's name is 1 to 64 of the characters A-Z a-z 0-9 _ . @ -, and begins with a letter or digit")
    if _HASH.fullmatch(rest[0]) is None:
        raise ValueError(f"{name}: the hash is written sha256: and 64 hexadecimal digits; the key itself does not belong here")
    if not rest[1:]:
        raise ValueError(f"{name}: a key without a scope would be of no use; known: tools:NAME, pools:NAME, metrics, admin")
    try:
        grants = read_scopes(rest[1:])
    except ValueError as exc:
        raise ValueError(f"{name}: {exc}") from exc
    return ApiKey(name, bytes.fromhex(rest[0].removeprefix(HASH_PREFIX)), grants)
