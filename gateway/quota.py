"""A limit of a caller's as a value: what it is, what is left of it, when there is more.

Made by runs/quotas.py, carried by the errors that a limit causes, and said by the front doors (codec/ratelimit.py has the
header fields). The words are those of draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

from typing import NamedTuple


class Quota(NamedTuple):
    """One limit. `limit` of `unit` in `window_s` seconds, None for so many at the same time.

    `remaining` is what is left of it now, `reset_s` how long until there is more; None where nobody can say.
    """

    name: str
    limit: int
    unit: str
    window_s: int | None
    remaining: int
    reset_s: float | None
