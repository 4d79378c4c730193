"""RegisterTools: tools that a gRPC client adds to its session, by the rules of Snakepit's tool registry (contract §5)."""

from __future__ import annotations

from gateway.host.registration import problem_of
from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.sessions import TOOLS_LIMIT, RegisteredTool, Session


def register(session: Session, request: pb.RegisterToolsRequest) -> pb.RegisterToolsResponse:
    """Add the tools to the session, all or none; what is wrong is said in the answer, never as a status."""
    names = [tool.name for tool in request.tools]
    for index, tool in enumerate(request.tools):
        problem = problem_of(tool, taken=tool.name in session.tools or tool.name in names[:index])
        if problem:
            return pb.RegisterToolsResponse(success=False, error_message=problem)
    if len(session.tools) + len(names) > TOOLS_LIMIT:
        return pb.RegisterToolsResponse(success=False, error_message=f"too_many_tools: the limit is {TOOLS_LIMIT} a session")
    for tool in request.tools:
        streams = tool.supports_streaming or tool.metadata.get("supports_streaming") in ("true", "1")
        session.tools[tool.name] = RegisteredTool(tool.name, request.worker_id, streams)
    return pb.RegisterToolsResponse(success=True, tool_ids={name: f"{session.id}:{name}" for name in names})
