"""What a service's pool is told about itself: a pool's options, and those that only a gRPC service has. Made by the settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.services.directory import Directory
from gateway.workers.options import PoolOptions


@dataclass(frozen=True, slots=True)
class ServiceOptions(PoolOptions):
    """One gRPC server, at the one address in `addresses`. `concurrency` is how many calls it may have at once."""

    # What it offers as a descriptor set says, and the fingerprint of that; None: it is asked (server reflection).
    directory: Directory | None = field(default=None, compare=False)
    fingerprint: str = ""
    # The full names of the services that are offered; None: all but the reflection itself.
    services: tuple[str, ...] | None = None
    # Whether fields that have their default value are there in answers.
    default_values: bool = False
    # Names, in lower case, of the request's headers that it gets as metadata, and of its metadata that the client gets.
    headers_in: frozenset[str] = frozenset()
    headers_out: frozenset[str] = frozenset()
    # The budget of a call that names none; None: as for tools.
    timeout_s: float | None = None
    # How often it is asked anew what it offers.
    refresh_s: float = 300.0
