"""A query string as a message: each parameter is the path of a field, `view.with_cover=true`, and repeated for repeated fields.

Used for rules of google.api.http (binding.py) and for methods that are called with GET at their own path.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any as JsonValue

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.codec.protojson import WELL_KNOWN
from gateway.errors import FieldError, GatewayError
from gateway.services.fieldtext import is_textual, value_of

# How far messages in messages are listed; how many names are told of in an error.
DEPTH_LIMIT = 4
PARAMETERS_LIMIT = 500
_NAMES_LIMIT = 20
_ERRORS_LIMIT = 20
# Dots in one name.
_WAY_LIMIT = 32


@dataclass(frozen=True)
class QueryParameter:
    """A field that a query may have, by the path that names it."""

    name: str
    field: FieldDescriptor


class Query:
    """What queries a message may be made of. `taken` are the JSON paths of fields that stand elsewhere: in the path, in the body."""

    def __init__(self, message: Descriptor, taken: Collection[str] = ()) -> None:
        self._message = message
        self._taken = frozenset(taken)
        self.parameters: tuple[QueryParameter, ...] = tuple(self._listed())

    def read(self, pairs: Sequence[tuple[str, str]]) -> dict[str, JsonValue]:
        """Return the message that a query's pairs say, as a JSON object. Raises as `read_into` does."""
        message: dict[str, JsonValue] = {}
        self.read_into(message, pairs)
        return message

    def read_into(self, message: dict[str, JsonValue], pairs: Sequence[tuple[str, str]]) -> None:
        """Put what a query's pairs say into a message.

        Raises:
            GatewayError: `invalid-message`, with an entry for each parameter that is unknown (and what is allowed), stands elsewhere, has a
                value that it can't have, or is there twice and not repeated.
        """
        errors: list[FieldError] = []
        for name, text in pairs:
            try:
                self._put(message, name, text)
            except GatewayError as exc:
                errors += exc.errors
                if len(errors) >= _ERRORS_LIMIT:
                    break
        if errors:
            names = ", ".join(dict.fromkeys(error.field for error in errors[:5]))
            raise GatewayError(
                "invalid-message", f"the query does not fit {self._message.full_name}: see errors for {names}", errors=errors
            )

    def _put(self, message: dict[str, JsonValue], name: str, text: str) -> None:
        parts = name.split(".")
        way = field_at(self._message, parts) if len(parts) <= _WAY_LIMIT else None
        if way is None:
            raise _refused(name, self._unknown(name))
        names = [field.json_name for field in way]
        if any(".".join(names[:end]) in self._taken for end in range(1, len(names) + 1)):
            raise _refused(name, "stands in the path or in the body, and can't be in the query")
        field = way[-1]
        if not is_textual(field):
            raise _refused(name, f"is a message{_inner_names(name, field)}")
        value = value_of(field, text, name)
        place = message
        for key in names[:-1]:
            place = place.setdefault(key, {})
        if field.is_repeated:
            place.setdefault(names[-1], []).append(value)
        elif names[-1] in place:
            raise _refused(name, "is there twice, and takes one value")
        else:
            place[names[-1]] = value

    def _unknown(self, name: str) -> str:
        known = [parameter.name for parameter in self.parameters]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ";"
        more = f" and {len(known) - _NAMES_LIMIT} more" if len(known) > _NAMES_LIMIT else ""
        return f"is no field of {self._message.full_name}{hint} allowed: {', '.join(known[:_NAMES_LIMIT]) or 'none'}{more}"

    def _listed(self) -> list[QueryParameter]:
        listed: list[QueryParameter] = []
        waiting: list[tuple[str, str, Descriptor, int]] = [("", "", self._message, 1)]
        while waiting and len(listed) < PARAMETERS_LIMIT:
            prefix, json_prefix, message, depth = waiting.pop(0)
            for field in message.fields:
                json_path = json_prefix + field.json_name
                if json_path in self._taken:
                    continue
                inner = field.message_type
                if inner is None or is_textual(field):
                    listed.append(QueryParameter(prefix + field.name, field))
                elif not field.is_repeated and depth < DEPTH_LIMIT and inner.full_name not in WELL_KNOWN:
                    waiting.append((f"{prefix}{field.name}.", f"{json_path}.", inner, depth + 1))
        return listed[:PARAMETERS_LIMIT]


def field_at(message: Descriptor, names: Sequence[str]) -> list[FieldDescriptor] | None:
    """Return the fields on the way that these names (in the proto file or in JSON) lead; None where they lead nowhere."""
    way: list[FieldDescriptor] = []
    inner: Descriptor | None = message
    for name in names:
        if inner is None or (way and way[-1].is_repeated):
            return None
        field = _fields(inner).get(name)
        if field is None:
            return None
        way.append(field)
        # In JSON the well-known types have no fields.
        inner = None if field.message_type is None or field.message_type.full_name in WELL_KNOWN else field.message_type
    return way or None


def _fields(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    return {**{field.json_name: field for field in message.fields}, **dict(message.fields_by_name)}


def _inner_names(name: str, field: FieldDescriptor) -> str:
    message = field.message_type
    if field.is_repeated or message is None or message.full_name in WELL_KNOWN or not message.fields:
        return ", which a query can't say"
    names = ", ".join(f"{name}.{inner.name}" for inner in message.fields[:5])
    return f": name its fields ({names})"


def _refused(name: str, detail: str) -> GatewayError:
    return GatewayError("invalid-message", f"{name[:300]} {detail}", errors=[FieldError(name[:300], detail)])
