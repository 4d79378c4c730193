"""Callers with keys: Ada and Bob, who may run every tool, Eve, who may run `add` alone, Mel, who may read metrics, and an admin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.auth.keys import line_of, new_secret


@dataclass(frozen=True)
class Person:
    name: str
    scopes: tuple[str, ...]
    key: str

    @property
    def line(self) -> str:
        return line_of(self.name, self.key, self.scopes)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def person(name: str, *scopes: str) -> Person:
    return Person(name, scopes, new_secret())


ADA = person("ada", "tools:*")
BOB = person("bob", "tools:*")
EVE = person("eve", "tools:add")
MEL = person("mel", "metrics")
ADMIN = person("admin", "admin")
PEOPLE = (ADA, BOB, EVE, MEL, ADMIN)
SECRET = "a secret that the tests' gateways share, long enough"


def auth(**options: Any) -> dict[str, Any]:
    """The `[auth]` settings of a gateway that knows them all."""
    return {"keys": "\n".join(each.line for each in PEOPLE), "secret": SECRET, **options}
