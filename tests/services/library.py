"""A gRPC server for the tests: the Library of protos/library.proto, with reflection and health.

It counts the calls that are open, so that a test can see one end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import DESCRIPTOR as REFLECTION

from tests.services.compiled import message, pool

LIBRARY = "test.library.v1.Library"
HEALTH = "grpc.health.v1.Health"
WAIT_S = 10


@dataclass
class Library:
    """The methods. `open` are the calls in progress by method, `seen` the requests, `cancelled` the methods whose call was."""

    open: dict[str, int] = field(default_factory=dict)
    seen: list[Any] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    # Until this is set, AddBooks reads nothing; None: at once.
    gate: asyncio.Event | None = None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def GetBook(self, request: Any, context: Any) -> Any:
        if request.name.endswith("/none"):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no book {request.name}")
        return message("library.v1.Book")(
            name=request.name,
            title="Emma",
            pages=request.edition or 474,
            cover=b"\x89PNG" if request.view.with_cover else b"",
            genre="NOVEL",
            authors=["Jane Austen"],
            ratings={"Harriet": 5},
            row=3,
        )

    async def ListBooks(self, request: Any, context: Any) -> Any:
        book = message("library.v1.Book")
        books = [book(name=f"{request.parent}/books/{number}") for number in range(request.page_size or 2)]
        return message("library.v1.ListBooksResponse")(books=books, total=len(books))

    async def CreateBook(self, request: Any, context: Any) -> Any:
        book = message("library.v1.Book")()
        book.CopyFrom(request.book)
        book.name = f"{request.parent}/books/{request.book.title.lower()}"
        return book

    async def UpdateBook(self, request: Any, context: Any) -> Any:
        return request.book

    async def DeleteBook(self, request: Any, context: Any) -> Any:
        return message("google.protobuf.Empty")()

    async def MoveBook(self, request: Any, context: Any) -> Any:
        return message("library.v1.Book")(name=f"{request.other_shelf}/books/{request.name.rpartition('/')[2]}")

    async def StatFile(self, request: Any, context: Any) -> Any:
        return message("library.v1.StatFileResponse")(path=request.path)

    async def WatchShelf(self, request: Any, context: Any) -> AsyncIterator[Any]:
        event = message("library.v1.ShelfEvent")
        for sequence in range(1, (request.limit or 2) + 1):
            shown = event(sequence=sequence, removed=f"{request.shelf}/books/{sequence}")
            shown.at.seconds = 1_700_000_000 + sequence
            yield shown
        if not request.limit:
            await asyncio.Event().wait()

    async def Count(self, request: Any, context: Any) -> AsyncIterator[Any]:
        answer = message("library.v1.CountResponse")
        number = 0
        while not request.to or number < request.to:
            number += 1
            if request.pause_ms:
                await asyncio.sleep(request.pause_ms / 1000)
            yield answer(number=number, data=b"." * request.size)
        if request.code:
            await context.abort(_status(request.code), request.message)

    async def AddBooks(self, requests: AsyncIterator[Any], context: Any) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        names = [book.name async for book in requests]
        return message("library.v1.AddBooksResponse")(count=len(names), names=names[:100])

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Answer each note at once; "bye" ends the call before the client does, "fail" fails it."""
        note = message("library.v1.Note")
        number = 0
        async for asked in requests:
            number += 1
            if asked.text == "bye":
                return
            if asked.text == "fail":
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as you wish")
            yield note(text=asked.text.upper(), number=number)
        yield note(text="that is all", number=number)

    async def Echo(self, request: Any, context: Any) -> Any:
        return request

    async def Fail(self, request: Any, context: Any) -> Any:
        if request.with_details:
            context.set_trailing_metadata((("grpc-status-details-bin", _details(request).SerializeToString()),))
        await context.abort(_status(request.code or 13), request.message)

    async def Headers(self, request: Any, context: Any) -> Any:
        await context.send_initial_metadata((("x-initial", "first"), ("x-blob-bin", b"\x00\x01")))
        context.set_trailing_metadata((("x-trailing", "last"),))
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        return message("library.v1.HeadersResponse")(metadata=metadata)

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return all methods as gRPC takes them."""
        service = pool().FindServiceByName(LIBRARY)
        return grpc.method_handlers_generic_handler(LIBRARY, {method.name: self._handler(method) for method in service.methods})

    def _handler(self, method: Any) -> grpc.RpcMethodHandler:
        kind = ("stream" if method.client_streaming else "unary") + ("_stream" if method.server_streaming else "_unary")
        behaviour = getattr(self, method.name)
        watched = self._watch_stream if method.server_streaming else self._watch
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        request, answer = (message(kind.full_name.removeprefix("test.")) for kind in (method.input_type, method.output_type))
        return make(watched(method.name, behaviour), request.FromString, lambda made: answer.SerializeToString(made))

    def _watch(self, name: str, behaviour: Any) -> Any:
        async def watched(request: Any, context: Any) -> Any:
            self._opened(name, request)
            try:
                return await behaviour(request, context)
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            finally:
                self._closed(name)

        return watched

    def _watch_stream(self, name: str, behaviour: Any) -> Any:
        async def watched(request: Any, context: Any) -> AsyncIterator[Any]:
            self._opened(name, request)
            try:
                async for answer in behaviour(request, context):
                    yield answer
            except (asyncio.CancelledError, GeneratorExit):
                self.cancelled.append(name)
                raise
            finally:
                self._closed(name)

        return watched

    def _opened(self, name: str, request: Any) -> None:
        self.open[name] = self.open.get(name, 0) + 1
        self.seen.append(request)
        self.changed.set()

    def _closed(self, name: str) -> None:
        self.open[name] -= 1
        self.changed.set()


def _status(code: int) -> grpc.StatusCode:
    return next(status for status in grpc.StatusCode if status.value[0] == code)


def _details(request: Any) -> status_pb2.Status:
    """Return a status with details of three kinds that everybody knows, one of the server's own, and one that nobody does."""
    violation = error_details_pb2.BadRequest.FieldViolation(field="book.title", description="is too long")
    details = [
        error_details_pb2.BadRequest(field_violations=[violation]),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=7)),
        error_details_pb2.ErrorInfo(reason="TITLE", domain="library.example", metadata={"limit": "80"}),
        message("library.v1.Note")(text="own", number=1),
    ]
    packed = []
    for detail in details:
        entry = any_pb2.Any(type_url=f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", value=detail.SerializeToString())
        packed.append(entry)
    packed.append(any_pb2.Any(type_url="type.googleapis.com/test.unknown.Thing", value=b"\x08\x01"))
    return status_pb2.Status(code=request.code or 13, message=request.message, details=packed)


@dataclass
class Server:
    """A running server."""

    library: Library
    server: grpc.aio.Server
    health: health.aio.HealthServicer
    address: str

    async def stop(self) -> None:
        """Stop it at once; idempotent."""
        await self.server.stop(None)


async def serve(address: str = "127.0.0.1:0", *, with_reflection: bool = True, reflected: Any = None) -> Server:
    """Start a server. `reflected`: the pool that reflection speaks of; None: the one it is made of."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    library = Library()
    server.add_generic_rpc_handlers((library.handlers(),))
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    if with_reflection:
        names = (LIBRARY, HEALTH, "grpc.reflection.v1alpha.ServerReflection")
        reflection.enable_server_reflection(names, server, _reflected() if reflected is None else reflected)
    port = server.add_insecure_port(address)
    await server.start()
    return Server(library, server, servicer, address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}")


def _reflected() -> Any:
    """Return the pool with what isn't in it by itself: the services of grpcio's own."""
    known = pool()
    for descriptor in (health_pb2.DESCRIPTOR, REFLECTION):
        known.AddSerializedFile(descriptor.serialized_pb)
    return known
