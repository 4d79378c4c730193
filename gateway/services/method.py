"""One method of a gRPC service: what it is called with, what it answers, and what is known about it.

Made by directory.py, used by whoever serves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from gateway.codec.protojson import MessageCodec
from gateway.services.httprules import HttpRule
from gateway.services.schema import Descriptions, Direction, schema_of


class Kind(StrEnum):
    """Who sends a stream: nobody, the server, the client, or both."""

    UNARY = "unary"
    SERVER_STREAMING = "server_streaming"
    CLIENT_STREAMING = "client_streaming"
    BIDI = "bidi"

    @property
    def client_streams(self) -> bool:
        """Whether the client may send any number of messages."""
        return self in (Kind.CLIENT_STREAMING, Kind.BIDI)

    @property
    def server_streams(self) -> bool:
        """Whether the server may answer any number of messages."""
        return self in (Kind.SERVER_STREAMING, Kind.BIDI)


class Idempotency(StrEnum):
    """What the service says of calling the method twice (`idempotency_level` in descriptor.proto)."""

    UNKNOWN = "unknown"
    NO_SIDE_EFFECTS = "no_side_effects"
    IDEMPOTENT = "idempotent"


@dataclass(frozen=True, eq=False)
class Method:
    """`service` is the service's full name, `name` the method's own; `description` its comment, where descriptors have comments."""

    service: str
    name: str
    kind: Kind
    request: MessageCodec
    response: MessageCodec
    http_rules: tuple[HttpRule, ...]
    description: str
    deprecated: bool
    idempotency: Idempotency
    # The comments of all types, for the schemas.
    descriptions: Descriptions

    @property
    def full_name(self) -> str:
        """`package.Service/Method`, as it is named everywhere here."""
        return f"{self.service}/{self.name}"

    @property
    def path(self) -> str:
        """`/package.Service/Method`, as it stands on the wire."""
        return f"/{self.service}/{self.name}"

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of what `request.from_json` takes. Not to be changed."""
        return schema_of(self.request.descriptor, Direction.IN, self.descriptions)

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) of what `response.to_json` returns. Not to be changed."""
        return schema_of(self.response.descriptor, Direction.OUT, self.descriptions)
