"""A method of a gRPC service as an entry of the catalogue: what runs/ and the front doors know of it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.services.directory import Directory
from gateway.services.method import Method
from gateway.services.options import ServiceOptions
from gateway.workers.description import Tool


@dataclass(frozen=True, slots=True, eq=False)
class RpcTool(Tool):
    """`name` is `package.Service/Method`. It has no `parameters`: what fits is its request message's to say.

    `directory` is what the method was found in, `options` are its service's.
    """

    method: Method = None  # type: ignore[assignment]
    directory: Directory = None  # type: ignore[assignment]
    options: ServiceOptions = None  # type: ignore[assignment]


def tools_of(directory: Directory, options: ServiceOptions) -> dict[str, Tool]:
    """Return the entries for all methods of a server, by their names."""
    return {
        name: RpcTool(
            name,
            options.name,
            method.description,
            method.kind.server_streams,
            method=method,
            directory=directory,
            options=options,
        )
        for name, method in directory.methods.items()
    }
