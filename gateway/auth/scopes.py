"""The words that say what a caller may do, and what they mean.

    tools:NAME  run that tool; `tools:train*`: those whose names begin so; `tools:*`: all. A method of a gRPC service is one under its
                full name, `tools:package.Service/Method`
    pools:NAME  use that pool, or that gRPC server, in the same manner
    metrics     read /metrics
    admin       everything; see, read and cancel everybody's runs

A tool may be run where a `tools:` word admits it and a `pools:` word admits its pool. A caller with words of one kind only is
not limited by the other: `tools:train` is that tool in any pool, `pools:gpu` any tool of that pool. No word, no tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.caller import Grants
from gateway.errors import GatewayError

_NAMED = re.compile(r"(tools|pools):([A-Za-z0-9_./-]{1,256}\*?|\*)")
SCOPES_TEXT = "tools:NAME, pools:NAME (NAME may end in *), metrics, admin"
SCOPES_LIMIT = 1000


def read_scopes(words: Iterable[str]) -> Grants:
    """Return what these words grant.

    Raises:
        ValueError: one is no scope of ours.
    """
    words = list(words)
    for word in words:
        if word not in ("metrics", "admin") and _NAMED.fullmatch(word) is None:
            raise ValueError(f"{word[:60]!r} is no scope; known: {SCOPES_TEXT}")
    return known_scopes(words)


def known_scopes(words: Iterable[str]) -> Grants:
    """Return what those of the words grant that are ours: an identity provider has others, such as `openid`."""
    named: dict[str, list[str]] = {"tools": [], "pools": []}
    plain: set[str] = set()
    for word in list(words)[:SCOPES_LIMIT]:
        if (match := _NAMED.fullmatch(word)) is not None:
            named[match[1]].append(match[2])
        else:
            plain.add(word)
    return Grants(tuple(named["tools"]), tuple(named["pools"]), metrics="metrics" in plain, admin="admin" in plain)


def words_of(grants: Grants) -> list[str]:
    """Return the words that grant this."""
    named = [f"tools:{name}" for name in grants.tools] + [f"pools:{name}" for name in grants.pools]
    return named + ["metrics"] * grants.metrics + ["admin"] * grants.admin


def scope_missing(*needed: str) -> GatewayError:
    """Return the error for a caller who would need one of these scopes."""
    detail = f"This needs the scope {' or '.join(needed)}"
    return GatewayError("scope-missing", detail, extra={"scope": " ".join(needed)})


def tool_refused(grants: Grants, tool: str, pool: str) -> GatewayError:
    """Return the error for a tool that may not be run: it names a word that is missing."""
    return scope_missing(f"pools:{pool}" if grants.pools and not grants.may_use(pool) else f"tools:{tool}")
