"""What may be registered with RegisterTools: Snakepit's own rules for a tool, and bounds on all that one worker registers with its host.

Source: Snakepit's tool registry (names and metadata); the bounds are those of a worker that describes itself.
"""

from __future__ import annotations

from gateway.codec.toolname import is_tool_name
from gateway.rpc import snakepit_bridge_pb2 as pb

REQUEST_LIMIT_BYTES = 4 * 1024 * 1024
TOOLS_LIMIT = 1000
METADATA_ENTRIES_LIMIT = 32
METADATA_BYTES_LIMIT = 4096


class RegistrationRefused(Exception):
    """Why tools can't be registered, in Snakepit's words where it has some."""


def check(request: pb.RegisterToolsRequest) -> None:
    """Return if all the tools can be registered.

    Raises:
        RegistrationRefused: one can't, or there are too many.
    """
    size = request.ByteSize()
    if size > REQUEST_LIMIT_BYTES:
        raise RegistrationRefused(f"{{:request_too_large, {size} bytes, at most {REQUEST_LIMIT_BYTES}}}")
    if len(request.tools) > TOOLS_LIMIT:
        raise RegistrationRefused(f"{{:too_many_tools, {len(request.tools)}, at most {TOOLS_LIMIT}}}")
    names: set[str] = set()
    for tool in request.tools:
        problem = problem_of(tool, taken=tool.name in names)
        if problem is not None:
            raise RegistrationRefused(problem)
        names.add(tool.name)


def problem_of(tool: pb.ToolRegistration, *, taken: bool) -> str | None:
    """Return why one tool can't be registered, None where it can; `taken`: there is one of that name."""
    if not is_tool_name(tool.name):
        return f'{{:invalid_tool_name, "{tool.name[:64]}"}}'
    if taken:
        return f'{{:duplicate_tool, "{tool.name}"}}'
    size = sum(len(name.encode()) + len(value.encode()) for name, value in tool.metadata.items())
    if len(tool.metadata) > METADATA_ENTRIES_LIMIT or size > METADATA_BYTES_LIMIT:
        return f"{{:metadata_too_large, at most {METADATA_ENTRIES_LIMIT} entries and {METADATA_BYTES_LIMIT} bytes}}"
    return None
