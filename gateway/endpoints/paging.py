"""The query of a list that comes in pages: known parameters, each at most once, and how many entries a page has."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

from fastapi import Request

from gateway.runs.policy import invalid_option

PAGE_DEFAULT = 20
PAGE_LIMIT = 100


def read_query(request: Request, names: Sequence[str]) -> dict[str, str]:
    """Return the parameters of a list.

    Raises:
        GatewayError: `invalid-option`, one is unknown or given twice.
    """
    asked: dict[str, str] = {}
    for name, value in parse_qsl(request.url.query, keep_blank_values=True, max_num_fields=100):
        if name not in names:
            raise invalid_option(name[:60], f"is no parameter of the list; known: {', '.join(names)}")
        if name in asked:
            raise invalid_option(name, "is given twice")
        asked[name] = value
    return asked


def read_limit(text: str | None) -> int:
    """Return how many entries a page has.

    Raises:
        GatewayError: `invalid-option`.
    """
    if text is None:
        return PAGE_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= PAGE_LIMIT):
        raise invalid_option("limit", f"is {text[:40]!r}; allowed: a whole number from 1 to {PAGE_LIMIT}")
    return int(text)
