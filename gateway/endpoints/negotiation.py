"""Chooses a media type by the Accept header: RFC 9110 §12.5.1 (quality first, then specificity, then our order)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import GatewayError

ACCEPT_LIMIT = 1024


def choose(accept: str | None, offered: Sequence[str]) -> str:
    """Return the one of `offered` (best first) that the client likes most; the first where it has no wish.

    Raises:
        GatewayError: `not-acceptable`, listing what is offered.
    """
    if not accept or accept == "*/*":
        return offered[0]
    if accept in offered:
        return accept
    ranges = [_parse(part) for part in accept[:ACCEPT_LIMIT].split(",") if part.strip()]
    best: tuple[float, int, int] | None = None
    chosen = None
    for index, media_type in enumerate(offered):
        matches = [(specificity, quality) for name, quality, specificity in ranges if _matches(name, media_type)]
        if not matches:
            continue
        # The most specific range that matches a type gives that type's quality.
        specificity, quality = max(matches)
        rank = (quality, specificity, -index)
        if quality > 0 and (best is None or rank > best):
            best, chosen = rank, media_type
    if chosen is None:
        raise GatewayError("not-acceptable", f"Accept is {accept[:100]!r}; offered: {', '.join(offered)}")
    return chosen


def _parse(part: str) -> tuple[str, float, int]:
    """Return a range's name, quality and specificity: 0 for */*, 1 for type/*, 2 for type/subtype."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return name, quality, 0 if name == "*/*" else 1 if name.endswith("/*") else 2


def _matches(name: str, media_type: str) -> bool:
    return name in ("*/*", media_type) or (name.endswith("/*") and media_type.startswith(name[:-1]))
