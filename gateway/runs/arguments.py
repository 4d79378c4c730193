"""Checks a call's arguments against its tool's JSON Schema before any worker is touched.

Used by the hub for every front door. One FieldError for each bad field, its `field` a JSON pointer (RFC 6901).
The work is jsonschema's; only the sentences for the three usual mistakes are ours, since they can name what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError

from gateway.errors import FieldError, GatewayError

ERRORS_LIMIT = 20


class ArgumentChecker:
    """The checker for one tool; made once, used for every call of it."""

    def __init__(self, tool: str, schema: Mapping[str, Any]) -> None:
        self._tool = tool
        self._names = list(schema.get("properties", {}))
        self._validator = Draft202012Validator(dict(schema))

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Return if the arguments fit.

        Raises:
            GatewayError: `invalid-arguments`, with at most ERRORS_LIMIT entries in `errors`.
        """
        if self._validator.is_valid(arguments):
            return
        errors = [entry for error in self._validator.iter_errors(arguments) for entry in self._explain(error)]
        fields = ", ".join(dict.fromkeys(entry.field for entry in errors[:5]))
        detail = f"{self._tool} does not take these arguments: see errors for {fields}"
        raise GatewayError("invalid-arguments", detail, errors=errors[:ERRORS_LIMIT])

    def _explain(self, error: ValidationError) -> Iterable[FieldError]:
        where = pointer(error.absolute_path)
        instance, value = error.instance, error.validator_value
        if error.validator == "required" and isinstance(instance, Mapping) and isinstance(value, list):
            # jsonschema reports each missing name on its own, but says which one only in its message.
            missing = next((name for name in value if error.message.startswith(repr(name))), "?")
            yield FieldError(f"{where}/{_escape(missing)}", "is required")
            return
        if error.validator == "additionalProperties" and not error.absolute_path and isinstance(instance, Mapping):
            allowed = ", ".join(self._names) or "none"
            for name in instance:
                if name not in self._names:
                    yield FieldError(f"{where}/{_escape(name)}", f"is not an argument of {self._tool}; allowed: {allowed}")
            return
        yield FieldError(where or "/", _shorten(error.message))


def pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) for a path into a document; the empty text for the document itself."""
    return "".join(f"/{_escape(str(part))}" for part in path)


def _escape(part: str) -> str:
    return _shorten(part.replace("~", "~0").replace("/", "~1"))


def _shorten(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
