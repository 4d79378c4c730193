"""Requests that are no protobuf of their kind end as INVALID_ARGUMENT: an interceptor of our gRPC listeners (bridge/, host/).

grpc has no way for a deserializer to end its call: what it raises becomes UNKNOWN, and a traceback in the log for whatever a
client sends. So the deserializer of a single request returns a Malformed instead, which the service never sees. In a stream of
requests its error reaches the service's loop, and through it us.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from inspect import isawaitable
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Malformed:
    """Stands in for a request that could not be read."""


class MalformedInterceptor(grpc.aio.ServerInterceptor):
    """See the module. A method's handler is made once: there are only as many as the services have methods."""

    def __init__(self) -> None:
        self._guarded: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]], details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(details)
        # None: nobody serves that method, which grpc answers.
        if handler is None:
            return None
        known = self._guarded.get(details.method)
        if known is None or known[0] is not handler:
            known = self._guarded[details.method] = handler, _guarded(handler)
        return known[1]


def _guarded(handler: Handler) -> Handler:
    """Return a handler of the same kind that ends malformed requests."""
    # The stubs say that each of these is there; of a handler, only those of its kind are.
    deserialize: Any = handler.request_deserializer
    serialize: Any = handler.response_serializer
    if handler.request_streaming:
        respond: Any = handler.stream_stream if handler.response_streaming else handler.stream_unary

        async def stream(requests: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async with aclosing(respond(requests, context)) as responses:
                    async for response in responses:
                        yield response
            except DecodeError:
                await _abort(context)

        # No service here takes a stream and answers once.
        return grpc.stream_stream_rpc_method_handler(stream, deserialize, serialize) if handler.response_streaming else handler

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return Malformed()

    if handler.response_streaming:
        answer_many: Any = handler.unary_stream

        async def many(request: Any, context: Context) -> AsyncIterator[Any]:
            if isinstance(request, Malformed):
                await _abort(context)
            answers = answer_many(request, context)
            if isawaitable(answers):
                # One that writes by its context, as Watch of grpc.health does.
                await answers
                return
            # One step more a message, of some 0.2 µs; grpc.aio takes 60.
            async with aclosing(answers) as responses:
                async for response in responses:
                    yield response

        return grpc.unary_stream_rpc_method_handler(many, read, serialize)
    answer: Any = handler.unary_unary

    async def one(request: Any, context: Context) -> Any:
        if isinstance(request, Malformed):
            await _abort(context)
        return await answer(request, context)

    return grpc.unary_unary_rpc_method_handler(one, read, serialize)


async def _abort(context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request is not a message of the method's type")
    raise AssertionError("abort raises")
