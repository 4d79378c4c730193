"""A request's head as the endpoints read it: the method, the query, and header fields that are looked up by name.

Made from an ASGI scope, by express.py and direct.py for the endpoints they find, and by routes that read tool calls. Starlette's
Request goes through the list of fields for each that is asked for, and makes more objects than a short stream has use for.
"""

from __future__ import annotations

from typing import Any, final

from starlette.types import Scope


@final
class RequestHead:
    """The head of one request. `scope` is what it was made from: for what a layer before the endpoints has put there."""

    __slots__ = ("_fields", "method", "query", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope: dict[str, Any] = dict(scope) if not isinstance(scope, dict) else scope
        self.method: str = self.scope["method"]
        self.query: bytes = self.scope["query_string"]
        fields: list[tuple[bytes, bytes]] = self.scope["headers"]
        # Of a repeated field the first counts.
        self._fields: dict[bytes, bytes] = dict(reversed(fields))

    def header(self, name: bytes) -> str | None:
        """Return a header field; its name in lower case, as ASGI has them. None where there is none."""
        value = self._fields.get(name)
        return None if value is None else value.decode("latin-1")
