"""Quotas as header fields: `RateLimit-Policy` says what is allowed, `RateLimit` what is left of it.

Both are Lists of RFC 9651, an Item for each quota. Used for HTTP answers and, under the same names in lower case, for a gRPC
call's metadata. Source: draft-ietf-httpapi-ratelimit-headers-11 (`q`, `qu` and `w`; `r` and `t`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gateway.quota import Quota


def fields(quotas: Sequence[Quota]) -> dict[str, str]:
    """Return the header fields for some quotas; none for none."""
    if not quotas:
        return {}
    return {"RateLimit-Policy": ", ".join(map(_policy, quotas)), "RateLimit": ", ".join(map(_left, quotas))}


def _policy(quota: Quota) -> str:
    unit = "" if quota.unit == "requests" else f';qu="{quota.unit}"'  # the draft's default
    window = "" if quota.window_s is None else f";w={quota.window_s}"
    return f'"{quota.name}";q={quota.limit}{unit}{window}'


def _left(quota: Quota) -> str:
    reset = "" if quota.reset_s is None else f";t={math.ceil(quota.reset_s)}"
    return f'"{quota.name}";r={quota.remaining}{reset}'
