"""A method of a gRPC service: `GET|POST /v1/rpc/{package.Service}/{Method}`, with proto3 JSON.

A method that streams its answers is a stream as a tool's is (stream.py): SSE, JSON lines or one JSON object by Accept, with the same
ids, reconnects and options. Any other is answered with its message, as JSON. GET is for what changes nothing: streams, which
EventSource can only ask for so, and methods that are NO_SIDE_EFFECTS. What takes a stream of messages takes JSON lines, all of them
in the body; where they depend on the answers it needs a WebSocket (rpcsocket.py).
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.caller import caller_of
from gateway.endpoints import collected, prefer
from gateway.endpoints.endpoint import Endpoint
from gateway.endpoints.head import RequestHead
from gateway.endpoints.negotiation import choose
from gateway.endpoints.problem import problem_response
from gateway.endpoints.rpccontract import RPC_GET, RPC_POST
from gateway.endpoints.rpcrequests import RPC_OPTIONS, RPC_STARTING_OPTIONS, RpcQuestion, RpcReader, method_not_allowed
from gateway.endpoints.stream import OFFERED, RunResponses
from gateway.errors import GatewayError
from gateway.runs.policy import CANCEL, CONTINUE
from gateway.services.method import Idempotency, Method
from gateway.services.tool import RpcTool

METHODS = frozenset({"GET", "HEAD", "POST"})
ROUTE = "/v1/rpc/{service}/{method}"


class RpcResponses:
    """Answers questions to methods, whichever path they came by."""

    def __init__(self, reader: RpcReader, responses: RunResponses) -> None:
        self.reader = reader
        self._responses = responses

    def answer(self, request: RequestHead, asked: RpcQuestion, *, is_head: bool = False) -> Response:
        """Return the response to a question. `is_head`: what it would be, and nothing is called.

        Raises:
            GatewayError: whatever is wrong with the request; what the hub refuses with.
        """
        kind = asked.tool.method.kind
        if kind.client_streams and not asked.many:
            raise _needs_socket(asked.tool)
        media_type = choose(request.header(b"accept"), OFFERED if kind.server_streams else (collected.MEDIA_TYPE,))
        return (
            self._stream(request, asked, media_type, is_head) if kind.server_streams else self._single(request, asked, media_type, is_head)
        )

    def _stream(self, request: RequestHead, asked: RpcQuestion, media_type: str, is_head: bool) -> Response:
        reader, responses = self.reader, self._responses
        if (resumption := reader.resumption(request)) is not None:
            caller = caller_of(request.scope)
            return responses.head(media_type, resumption[0]) if is_head else responses.resumed(caller, *resumption, media_type)
        preferences = prefer.read(request.header(prefer.FIELD), wait_limit_s=responses.wait_limit_s)
        in_background = preferences.respond_async
        wanted = reader.read(request, asked, names=RPC_OPTIONS, on_disconnect=CONTINUE if in_background else CANCEL)
        options = reader.calls.reader(wanted)
        if is_head:
            reader.calls.hub.check(wanted.call)
            return responses.head(media_type)
        return responses.begun(wanted, preferences) if in_background else responses.opened(wanted, media_type, options)

    def _single(self, request: RequestHead, asked: RpcQuestion, media_type: str, is_head: bool) -> Response:
        reader, responses = self.reader, self._responses
        preferences = prefer.read(request.header(prefer.FIELD), wait_limit_s=responses.wait_limit_s)
        in_background = preferences.respond_async
        wanted = reader.read(request, asked, names=RPC_STARTING_OPTIONS, on_disconnect=CONTINUE if in_background else CANCEL)
        if is_head:
            reader.calls.hub.check(wanted.call)
            return responses.head(media_type)
        if in_background:
            return responses.begun(wanted, preferences)
        return responses.opened(wanted, media_type, wanted.options.reader, bare=True)


def endpoint(rpcs: RpcResponses) -> Endpoint:
    """Return what answers a request at a method's own path."""

    def rpc(request: RequestHead, name: str, body: bytes) -> Response:
        asked = rpcs.reader.question(request, name, body)
        if request.method != "POST" and not is_gettable(asked.tool.method) and not asked.tool.method.kind.client_streams:
            refusal = problem_response(method_not_allowed(name, request.method, ["POST"]), instance=request.scope["path"])
            refusal.headers["Allow"] = "POST"
            return refusal
        return rpcs.answer(request, asked, is_head=request.method == "HEAD")

    return Endpoint(rpc, METHODS, rpcs.reader.calls.limits.body_bytes, ROUTE)


def is_gettable(method: Method) -> bool:
    """Return whether a method may be called with GET at its own path."""
    return method.kind.server_streams or method.idempotency is Idempotency.NO_SIDE_EFFECTS


def _needs_socket(tool: RpcTool) -> GatewayError:
    kind = "a stream of messages" if tool.method.kind.server_streams else "a stream of messages for one answer"
    return GatewayError(
        "rpc-needs-socket", f"{tool.name} takes {kind}, use the WebSocket {socket_path(tool.name)}, or POST them as application/x-ndjson"
    )


def socket_path(name: str) -> str:
    """Return the path of the WebSocket for a method."""
    return f"/v1/rpc/{name}/ws"


def router(answers: Endpoint) -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(tags=["gRPC services"])

    async def rpc(request: Request, service: str, method: str) -> Response:
        return await answers(request, f"{service}/{method}")

    routes.add_api_route(ROUTE, rpc, methods=["GET"], **RPC_GET)
    routes.add_api_route(ROUTE, rpc, methods=["HEAD"], include_in_schema=False)
    routes.add_api_route(ROUTE, rpc, methods=["POST"], **RPC_POST)
    return routes
