"""Idempotency keys: a request that is sent again with the same key gets the run that the first one started.

A key is its caller's: the same one of another caller is another key.

Owned by the hub. A key is known as long as its run is, so there are no more keys than runs. Looking up and starting happen in
one synchronous step, so of two requests at once one starts the run and the other joins it.
Source: docs of the protocol, section 3; draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.caller import ANONYMOUS, Caller
from gateway.errors import FieldError, GatewayError
from gateway.runs.run import Run

HEADER = "Idempotency-Key"

_KEY = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Claim:
    """A key, which is its caller's alone, and the fingerprint of the request that came with it."""

    key: str
    fingerprint: bytes


def claim(
    key: str, caller: Caller, tool: str, arguments: Mapping[str, Any], options: Iterable[tuple[str, str]], *, streaming: bool
) -> Claim:
    """Return the claim of a request. `options` are those that it was sent with and that say what is to be run, in any order.

    The fingerprint is a SHA-256 of all this and of nothing else: two ways to ask for the same run have the same.

    Raises:
        GatewayError: `invalid-option`, the key is none.
    """
    if not _KEY.fullmatch(key):
        detail = f"has {len(key)} characters; allowed: 1 to 255 printable ASCII characters"
        raise GatewayError("invalid-option", f"{HEADER} {detail}", errors=[FieldError(HEADER, detail)])
    request = [tool, arguments, sorted(options), streaming]
    # A line break is in no key: nobody's key can look like another caller's.
    name = key if caller.id == ANONYMOUS.id else f"{caller.id}\n{key}"
    return Claim(name, hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).digest())


class IdempotencyKeys:
    """The keys in use."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[bytes, Run]] = {}
        self._keys: dict[str, str] = {}

    def find(self, wanted: Claim) -> Run | None:
        """Return the run that was started with this key, None for a new one.

        Raises:
            GatewayError: `idempotency-conflict`, it was started by another request.
        """
        fingerprint, run = self._claims.get(wanted.key, (wanted.fingerprint, None))
        if fingerprint != wanted.fingerprint:
            detail = "this key came with another request before; a key is for one tool, its arguments and its options"
            raise GatewayError("idempotency-conflict", f"{HEADER}: {detail}", errors=[FieldError(HEADER, detail)])
        return run

    def keep(self, wanted: Claim, run: Run) -> None:
        """Tie a key to the run that its request started."""
        self._claims[wanted.key] = wanted.fingerprint, run
        self._keys[run.id] = wanted.key

    def forget(self, run: Run) -> None:
        """Free the key of a run that is not known any more."""
        key = self._keys.pop(run.id, None)
        if key is not None:
            del self._claims[key]
