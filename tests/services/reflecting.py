"""A gRPC server that answers reflection as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

import grpc
import grpc.aio
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

Answer = Callable[[ServerReflectionRequest], AsyncIterator[bytes]]


class Reflecting:
    """`asked` are the questions, in order, each with the version it was asked in."""

    def __init__(self, answer: Answer, versions: Iterable[str] = ("v1",)) -> None:
        self.asked: list[tuple[str, ServerReflectionRequest]] = []
        self.address = ""
        self._answer = answer
        self._server = grpc.aio.server()
        for version in versions:
            handler = grpc.stream_stream_rpc_method_handler(self._handler(version), ServerReflectionRequest.FromString, bytes)
            service = f"grpc.reflection.{version}.ServerReflection"
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": handler}),))

    async def __aenter__(self) -> Reflecting:
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    def _handler(self, version: str) -> object:
        async def handle(requests: AsyncIterator[ServerReflectionRequest], _context: object) -> AsyncIterator[bytes]:
            async for request in requests:
                self.asked.append((version, request))
                async for response in self._answer(request):
                    yield response

        return handle


def services(*names: str) -> bytes:
    """The answer that lists these services."""
    response = ServerReflectionResponse()
    for name in names:
        response.list_services_response.service.add(name=name)
    return response.SerializeToString()


def file_answer(*serialized: bytes) -> bytes:
    """The answer that is these files."""
    response = ServerReflectionResponse()
    response.file_descriptor_response.file_descriptor_proto.extend(serialized)
    return response.SerializeToString()


def error(code: int, message: str) -> bytes:
    """The answer that is an error."""
    response = ServerReflectionResponse()
    response.error_response.error_code = code
    response.error_response.error_message = message
    return response.SerializeToString()
