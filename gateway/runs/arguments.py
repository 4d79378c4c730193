"""Checks a call's arguments against its tool's JSON Schema before any worker is touched.

Used by the hub for every front door. One FieldError for each bad field, its `field` a JSON pointer (RFC 6901).
The work is jsonschema-rs's: 0.4 µs for a usual call, against 29 of the pure Python library. Only the sentences for
the two usual mistakes are ours, since they can name what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationErrorKind

from gateway.errors import FieldError, GatewayError

ERRORS_LIMIT = 20

# How the validator says that an argument is not among the properties; the second where there are none at all.
_SURPLUS = (ValidationErrorKind.AdditionalProperties, ValidationErrorKind.FalseSchema)


class ArgumentChecker:
    """The checker for one tool; made once, used for every call of it."""

    def __init__(self, tool: str, schema: Mapping[str, Any]) -> None:
        self._tool = tool
        self._names = list(schema.get("properties", {}))
        self._is_closed = schema.get("additionalProperties") is False
        # Of a schema that came with a reference to elsewhere, workers/schema.py would have made None; this is the second lock.
        self._validator = Draft202012Validator(dict(schema), retriever=_refuse)

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Return if the arguments, JSON values all, fit.

        Raises:
            GatewayError: `invalid-arguments`, with at most ERRORS_LIMIT entries in `errors`.
        """
        if self._validator.is_valid(arguments):
            return
        errors = list(islice(chain(self._surplus(arguments), self._misfits(arguments)), ERRORS_LIMIT))
        fields = ", ".join(dict.fromkeys(entry.field for entry in errors[:5]))
        detail = f"{self._tool} does not take these arguments: see errors for {fields}"
        raise GatewayError("invalid-arguments", detail, errors=errors)

    def _surplus(self, arguments: Mapping[str, Any]) -> Iterable[FieldError]:
        if self._is_closed:
            allowed = ", ".join(self._names) or "none"
            for name in arguments:
                if name not in self._names:
                    yield FieldError(f"/{_escape(name)}", f"is not an argument of {self._tool}; allowed: {allowed}")

    def _misfits(self, arguments: Mapping[str, Any]) -> Iterable[FieldError]:
        for error in self._validator.iter_errors(arguments):
            where = pointer(error.instance_path)
            if isinstance(error.kind, ValidationErrorKind.Required):
                yield FieldError(f"{where}/{_escape(error.kind.property)}", "is required")
            elif where or not isinstance(error.kind, _SURPLUS):
                yield FieldError(where or "/", _shorten(error.message))


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri[:200]} is outside the schema")


def pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) for a path into a document; the empty text for the document itself."""
    return "".join(f"/{_escape(str(part))}" for part in path)


def _escape(part: str) -> str:
    return _shorten(part.replace("~", "~0").replace("/", "~1"))


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
