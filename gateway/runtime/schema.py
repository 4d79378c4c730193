"""A tool's parameters, in the worker's words: wrong arguments are a Refusal, a default is JSON as a chunk is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.codec import signature
from gateway.runtime import payload
from gateway.runtime.failure import InvalidArguments, Unserialisable


class Parameters(signature.Parameters):
    """What a tool may be called with; see signature.Parameters."""

    def __init__(self, name: str, function: Callable[..., Any], descriptions: Mapping[str, str]) -> None:
        super().__init__(name, function, descriptions, _encoded)

    def bind(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments as the function takes them.

        Raises:
            InvalidArguments: some are wrong, missing or unknown.
        """
        try:
            return super().bind(arguments)
        except signature.ArgumentsWrong as error:
            raise InvalidArguments(str(error), error.errors) from None


def _encoded(value: Any) -> bytes | None:
    try:
        return payload.encode(value)
    except Unserialisable:
        return None
