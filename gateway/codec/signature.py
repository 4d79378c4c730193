"""A function's parameters: JSON Schema out of the signature, and arguments into what the function takes.

Read once for each tool, a worker's (runtime/schema.py) or the host's (hosttools/); bind() runs for each call. pydantic does both
from the annotations, on a TypedDict of the parameters: a parameter that is not given stays away, so the function's own default
applies. An annotation that pydantic knows nothing about (an array class, an unresolvable name) takes any value.

Standard: JSON Schema 2020-12, as the worker's Describe promises it.
"""

from __future__ import annotations

import inspect
import logging
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import TypedDict  # pydantic's own requirement on Python 3.11

from gateway.errors import FieldError
from gateway.rpc import snakepit_bridge_pb2 as pb

logger = logging.getLogger(__name__)

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class ArgumentsWrong(Exception):
    """Arguments that a function can't be called with; one entry in `errors` for each, its field a JSON pointer."""

    def __init__(self, message: str, errors: Sequence[FieldError]) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter as Snakepit's ParameterSpec says it: `type` is the annotation's name in lower case, or `any`."""

    name: str
    type: str
    description: str
    required: bool
    default: Any


class Parameters:
    """What a function may be called with.

    `function` is bound, or static: its signature holds no `self`. `descriptions` has the docstring's words for
    each parameter. `name` is the tool's, for the log. `encode` returns a default as JSON text, None where it has no such form.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], descriptions: Mapping[str, str], encode: Callable[[Any], bytes | None]
    ) -> None:
        self._encode = encode
        signature = inspect.signature(function)
        kinds = {parameter.name: parameter.kind for parameter in signature.parameters.values()}
        named = {
            parameter.name: parameter
            for parameter in signature.parameters.values()
            if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        }
        hints = _hints(name, function)
        self._positional = [key for key, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_ONLY]
        self.open = inspect.Parameter.VAR_KEYWORD in kinds.values()
        fields = {}
        self.each: list[Parameter] = []
        for key, parameter in named.items():
            hint = hints.get(key, Any)
            required = parameter.default is inspect.Parameter.empty
            if parameter.default is None:
                hint = hint | None if hint is not Any else Any
            about = descriptions.get(key, "")
            accepted = _known(name, key, hint)
            wrapper = typing.Required if required else typing.NotRequired
            fields[key] = wrapper[Annotated[accepted, Field(description=about)] if about else accepted]
            default = None if required else parameter.default
            self.each.append(Parameter(key, _type_name(parameter.annotation), about, required, default))
        shape = TypedDict(name, fields)  # type: ignore[misc]
        config = ConfigDict(extra="allow" if self.open else "forbid")
        self._adapter: TypeAdapter[Any] = TypeAdapter(with_config(config)(shape))
        self.schema = self._describe()

    def _describe(self) -> dict[str, Any]:
        schema = self._adapter.json_schema(schema_generator=_Tolerant)
        schema.pop("title", None)
        schema.setdefault("properties", {})
        for parameter in self.each:
            field = schema["properties"][parameter.name]
            field.pop("title", None)
            if not parameter.required:
                default = self._encode(parameter.default)
                if default is not None:
                    field["default"] = orjson.loads(default)
                else:
                    logger.debug("the default of %s has no JSON form and is left out of the schema", parameter.name)
        return {"$schema": _DIALECT, **schema, "additionalProperties": self.open}

    def bind(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments, converted, as positional and keyword arguments of the function.

        Raises:
            ArgumentsWrong: some are wrong, missing or unknown; one error for each, its field as a JSON pointer.
        """
        try:
            values = self._adapter.validate_python(dict(arguments))
        except ValidationError as error:
            entries = [FieldError(_pointer(entry["loc"]), entry["msg"]) for entry in error.errors(include_url=False, include_context=False)]
            listing = "; ".join(f"{entry.field}: {entry.detail}" for entry in entries[:5])
            more = f"; and {len(entries) - 5} more" if len(entries) > 5 else ""
            raise ArgumentsWrong(f"{listing}{more}", entries) from None
        positional = [values.pop(name) for name in self._positional if name in values]
        return positional, values

    def specs(self) -> list[pb.ParameterSpec]:
        """Return the parameters as Snakepit says them: a default stands in `validation_json`."""
        return [
            pb.ParameterSpec(
                name=parameter.name,
                type=parameter.type,
                description=parameter.description,
                required=parameter.required,
                validation_json="" if parameter.required else self._default(parameter.default),
            )
            for parameter in self.each
        ]

    def _default(self, default: Any) -> str:
        text = self._encode(default)
        return "{}" if text is None else f'{{"default":{text.decode()}}}'


class _Tolerant(GenerateJsonSchema):
    """JSON Schema of what has none is `{}`: any value."""

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        return {}


def _hints(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotations; one that can't be resolved is missing, and the log says so."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        logger.warning("tool %s: an annotation can't be resolved (%s); parameters with such take any value", name, error)
    target = inspect.unwrap(getattr(function, "__func__", function))
    namespace = getattr(target, "__globals__", vars(sys.modules[function.__module__]))
    hints = {}
    for key, annotation in getattr(target, "__annotations__", {}).items():
        try:
            # The annotations of a module whose code runs in this process anyway.
            hints[key] = eval(annotation, namespace) if isinstance(annotation, str) else annotation
        except Exception:
            logger.debug("tool %s: %s has the unresolvable annotation %r", name, key, annotation)
    return hints


def _known(name: str, key: str, hint: Any) -> Any:
    """Return the annotation if pydantic can check and convert to it, else Any."""
    try:
        TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError, TypeError, NameError):
        logger.info("tool %s: parameter %s takes any value, its annotation %r says nothing about JSON", name, key, hint)
        return Any
    return hint


def _pointer(location: tuple[int | str, ...]) -> str:
    """Return a JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in location)


def _type_name(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return "any"
    if isinstance(annotation, str):
        return annotation.lower() if annotation.isidentifier() else "any"
    return str(getattr(annotation, "__name__", "any")).lower()
