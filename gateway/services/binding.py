"""The request's message of a path, a query and a body, as a rule of google.api.http says, and the part of an answer that it wants.

Texts of paths and queries are made what their fields are; what becomes of it is the codec's to check. Source: google/api/http.proto,
"Rules for HTTP mapping".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any as JsonValue

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.codec.protojson import WELL_KNOWN, MessageCodec, default_of
from gateway.errors import FieldError, GatewayError
from gateway.services.fieldtext import is_textual, value_of
from gateway.services.httprules import HttpRule
from gateway.services.method import Method
from gateway.services.queries import Query, QueryParameter, field_at
from gateway.services.templates import Template


class BindingError(ValueError):
    """A rule that does not fit its method's messages; the message says where."""


class FieldCodec:
    """Answers one field of a message, for `response_body`; with the methods of MessageCodec that answers need."""

    def __init__(self, codec: MessageCodec, field: FieldDescriptor) -> None:
        self.field = field
        self._codec = codec
        self._default = default_of(field)

    def to_json(self, message: bytes) -> bytes:
        """Return the field as JSON text, its default value where it is not set. Raises as MessageCodec's does."""
        return orjson.dumps(self._codec.to_value(message).get(self.field.json_name, self._default))

    def to_json_all(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return the field of each message."""
        return [self.to_json(message) for message in messages]


@dataclass(frozen=True)
class _Bound:
    """A field that the path has: the way to it, and the last field of it."""

    way: tuple[FieldDescriptor, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.json_name for field in self.way)


class Binding:
    """One rule and its method's messages. `response` makes what is answered; `parameters` are what the query may have."""

    def __init__(self, method: Method, rule: HttpRule, template: Template) -> None:
        """Look whether they fit.

        Raises:
            BindingError: a variable, `body` or `response_body` is no field that it may be.
        """
        request = method.request.descriptor
        self._rule = rule
        self._bound = {variable.field: _bound(request, variable.field) for variable in template.variables}
        self._body: FieldDescriptor | None = None
        if rule.body not in ("", "*"):
            self._body = _top_level(request, rule.body, "body")
        self.response: MessageCodec | FieldCodec = method.response
        if rule.response_body:
            self.response = FieldCodec(method.response, _top_level(method.response.descriptor, rule.response_body, "response_body"))
        taken = {".".join(bound.names) for bound in self._bound.values()}
        if self._body is not None:
            taken.add(self._body.json_name)
        # With the whole message as its body a request has no query.
        self._query = None if rule.body == "*" else Query(request, taken)

    @property
    def parameters(self) -> tuple[QueryParameter, ...]:
        """What the query may have, for descriptions of it; none where the body is the whole message."""
        return () if self._query is None else self._query.parameters

    @property
    def body_field(self) -> FieldDescriptor | None:
        """The field that the body is; None: the body is the whole message (`*`), or there is none."""
        return self._body

    def bind(self, variables: Mapping[str, str], query: Sequence[tuple[str, str]], body: JsonValue = None) -> JsonValue:
        """Return the request's message as a JSON value, for `request.from_json`.

        `variables` are a Match's, `query` pairs of decoded texts without what is the gateway's own, `body` a JSON value; None: there is
        none. A body may repeat what the path says.

        Raises:
            GatewayError: `invalid-message`, naming each parameter, variable or part of the body that is wrong and what is allowed.
        """
        message = self._of_body(body)
        if self._query is not None:
            self._query.read_into(message, query)
        elif query:
            names = list(dict.fromkeys(name for name, _ in query))
            errors = [FieldError(name[:300], "is not allowed: the body is the whole message, so there is no query") for name in names[:20]]
            raise GatewayError("invalid-message", "this path takes no query parameters: the body is the whole message", errors=errors)
        for name, bound in self._bound.items():
            _put(message, bound, name, value_of(bound.way[-1], variables[name], name))
        return message

    def _of_body(self, body: JsonValue) -> dict[str, JsonValue]:
        if self._rule.body == "*":
            if body is None:
                return {}
            if not isinstance(body, dict):
                raise GatewayError("invalid-message", "the body must be a JSON object", errors=[FieldError("/", "must be an object")])
            return dict(body)
        if self._body is not None:
            return {} if body is None else {self._body.json_name: body}
        if body:
            raise GatewayError("invalid-message", "this path takes no body", errors=[FieldError("/", "there must be no body")])
        return {}


def _bound(request: Descriptor, name: str) -> _Bound:
    way = field_at(request, name.split("."))
    if way is None:
        raise BindingError(f"{request.full_name} has no field {name}; there are: {_names(request)}")
    if any(field.is_repeated for field in way) or not is_textual(way[-1]):
        raise BindingError(f"{name} is repeated or a message: in a path may stand numbers, texts, booleans and enums")
    return _Bound(tuple(way))


def _top_level(message: Descriptor, name: str, what: str) -> FieldDescriptor:
    if message.full_name in WELL_KNOWN:
        raise BindingError(f"{what} names {name}, but in JSON a {message.full_name} has no fields")
    field = message.fields_by_name.get(name) or next((field for field in message.fields if field.json_name == name), None)
    if field is None:
        raise BindingError(f"{what} names {name}, which {message.full_name} does not have; there are: {_names(message)}")
    return field


def _names(message: Descriptor) -> str:
    return ", ".join(field.name for field in message.fields[:20]) or "none"


def _put(message: dict[str, JsonValue], bound: _Bound, name: str, value: JsonValue) -> None:
    """Put a path's value into the message, in which the body may have put the same."""
    place = message
    for field in bound.way[:-1]:
        key = _key(place, field)
        inner = place.get(key)
        if inner is None:
            inner = {}
        elif not isinstance(inner, dict):
            raise GatewayError("invalid-message", f"{key} must be an object", errors=[FieldError(f"/{key}", "must be an object")])
        # The body is the caller's; what is put into it here isn't.
        place[key] = inner = dict(inner)
        place = inner
    key = _key(place, bound.way[-1])
    given = place.get(key)
    if given is not None and str(given) != str(value):
        shown = repr(str(value)[:100])
        error = FieldError("/" + "/".join(bound.names), f"must be absent or {shown}, as in the path")
        raise GatewayError("invalid-message", f"{name} is {shown} in the path and something else in the body", errors=[error])
    place[key] = value


def _key(place: Collection[str], field: FieldDescriptor) -> str:
    """Return the name that a field already has there, its own or the JSON one; the JSON one where it isn't there."""
    return field.name if field.name in place and field.json_name not in place else field.json_name
