"""The host's own tools, as workers may call them (`call_elixir_tool`): a seam; the listener is given what implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from google.protobuf.any_pb2 import Any

from gateway.rpc import snakepit_bridge_pb2 as pb


class HostTools(Protocol):
    """Functions of the gateway's that a worker's code may call."""

    def specs(self) -> Sequence[pb.ToolSpec]:
        """Return what there is."""

    async def execute(self, session_id: str, name: str, parameters: Mapping[str, Any]) -> pb.ExecuteElixirToolResponse:
        """Call one and return its answer, its failure included (`success` false). Never raises but for a cancellation.

        `parameters` are as the worker sent them: raw JSON under any type URL, or a packed wrapper message.
        """


def no_such_tool(name: str) -> pb.ExecuteElixirToolResponse:
    """Return the answer for a tool that the host hasn't, in Snakepit's words."""
    return pb.ExecuteElixirToolResponse(success=False, error_message=f"Tool {name} is not an Elixir tool")
