"""Who calls over gRPC: an interceptor that reads `authorization: Bearer …` from a call's metadata.

The service asks `current_caller`: an interceptor runs in its call's own task, so a context variable is that call's. Health and
reflection are open: they say which services there are, and a probe has no key. Without the interceptor everybody is ANONYMOUS.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

import grpc

from gateway.auth.authenticator import Authenticator
from gateway.bridge.status import STATUS
from gateway.caller import ANONYMOUS, Caller
from gateway.errors import GatewayError

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/", "/grpc.reflection.v1.ServerReflection/")

_caller: ContextVar[Caller] = ContextVar("gateway.caller", default=ANONYMOUS)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def current_caller() -> Caller:
    """Return who has made the call that is being served."""
    return _caller.get()


class CallerInterceptor(grpc.aio.ServerInterceptor):
    """Lets in who has a good credential; everybody else's calls end as UNAUTHENTICATED before the service sees them."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]], details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        # None: nobody serves that method, which grpc answers.
        if handler is None or details.method.startswith(OPEN_SERVICES):
            return handler
        try:
            _caller.set(await self._authenticator.check(_bearer(details)))
        except GatewayError as error:
            return _refusal(handler, error)
        return handler


def _bearer(details: grpc.HandlerCallDetails) -> str:
    """Return the credential in a call's metadata.

    Raises:
        GatewayError: `unauthenticated`, there is none; `credential-conflict`, there are two.
    """
    said = [value for name, value in details.invocation_metadata or () if name == "authorization"]
    if len(said) > 1:
        raise GatewayError("credential-conflict", "One `authorization` is enough")
    scheme, _, credential = (said[0] if said and isinstance(said[0], str) else "").partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise GatewayError("unauthenticated", "This needs metadata: authorization, with Bearer and a key or token")
    return credential.strip()


def _refusal(handler: Handler, error: GatewayError) -> Handler:
    """Return what ends a call of the handler's kind with an error's status."""
    status = STATUS[error.code]

    async def one(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(status, error.detail)

    async def many(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        await context.abort(status, error.detail)
        yield

    kinds = {
        (False, False): (grpc.unary_unary_rpc_method_handler, one),
        (False, True): (grpc.unary_stream_rpc_method_handler, many),
        (True, False): (grpc.stream_unary_rpc_method_handler, one),
        (True, True): (grpc.stream_stream_rpc_method_handler, many),
    }
    make, behaviour = kinds[handler.request_streaming, handler.response_streaming]
    refusal: Handler = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return refusal
