"""`[[services]]`: gRPC servers that are no workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from gateway.services.metadata import passed_name
from gateway.settings.pools import NAME_PATTERN, WorkerTlsSettings
from gateway.settings.section import Count, Seconds, Section
from gateway.transport.address import parse_address

HeaderName = Annotated[str, AfterValidator(passed_name)]


def _address(text: str) -> str:
    parse_address(text)
    return text


class ServiceSettings(Section):
    """One `[[services]]`: a gRPC server whose methods are served as they are, under `/v1/rpc/`."""

    # Under which it is listed among the pools, and which a scope `pools:NAME` means; none: the address, with `-` for `:` and `/`.
    name: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    # `host:port`, `dns:///name:port` or `unix:/path`.
    address: Annotated[str, AfterValidator(_address)]
    # Whether it is spoken to over TLS; a table says with which files.
    tls: bool | WorkerTlsSettings = False
    # What `protoc --include_imports --descriptor_set_out` has written; none: the server is asked (reflection).
    descriptor_set: Path | None = None
    # Full names of the services that are offered; none: all but the reflection itself.
    services: tuple[str, ...] = ()
    # Whether fields that have their default value are there in answers; by proto3 JSON's own rule they are left out.
    default_values: bool = False
    # Headers of a request that the service gets as metadata; `traceparent` and `x-request-id` it always gets.
    headers_in: tuple[HeaderName, ...] = ()
    # Metadata of an answer that the client gets, under the same name: the first as headers, the last in `metadata` of the end.
    headers_out: tuple[HeaderName, ...] = ()
    # The budget of a call that names none; none: `server.timeout_s`.
    timeout_s: Seconds | None = None
    # Calls that the server has at once; how many more may wait, and how long.
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 1000
    queue_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    queue_timeout_s: Seconds = 10.0
    # How long it may take to say what it offers, how often it is asked whether it is there, and how often what it offers.
    start_timeout_s: Seconds = 10.0
    health_interval_s: Seconds = 10.0
    health_timeout_s: Seconds = 5.0
    health_misses: Count = 3
    refresh_s: Seconds = 300.0

    @model_validator(mode="after")
    def _is_whole(self) -> ServiceSettings:
        if isinstance(self.tls, WorkerTlsSettings) and (self.tls.cert is None) != (self.tls.key is None):
            raise ValueError(f"service {self.pool!r}: tls.cert and tls.key belong together: give both or neither")
        return self

    @property
    def pool(self) -> str:
        """Its name among the pools."""
        return self.name or re.sub(r"[^A-Za-z0-9_.]+", "-", self.address.removeprefix("dns:///")).strip("-")[:64]
