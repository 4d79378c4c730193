"""Asks a server what it offers (gRPC server reflection), over a channel of our own.

`grpc.reflection.v1` is tried first, then `v1alpha`, whose messages are the same on the wire. Each question is a call of its own with
one message, so it takes nothing of the channel but `open_stream`. Source: grpc/reflection/v1/reflection.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

import structlog
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from gateway.errors import Code
from gateway.services.descriptors import BYTES_LIMIT, FILES_LIMIT, DescriptorError, missing_imports
from gateway.services.directory import REFLECTION, Directory, fingerprint
from gateway.services.firstanswer import FirstAnswer
from gateway.transport.base import CallStatus, Channel, Metadata

log = structlog.get_logger("gateway.service")

SERVICES_LIMIT = 1_000
_METHODS = tuple(f"/{service}/ServerReflectionInfo" for service in sorted(REFLECTION))


class DiscoveryFailed(Exception):
    """A server could not be asked, or what it said can't be used. The message is for the operator.

    `retryable`: it was not there, or not ready; asking again later may help.
    """

    def __init__(self, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.retryable = retryable


class _Refused(DiscoveryFailed):
    """A question was answered with an error."""


async def discover(
    channel: Channel,
    services: Collection[str] | None = None,
    *,
    timeout_s: float = 10,
    metadata: Metadata = (),
    known: Directory | None = None,
    with_defaults: bool = False,
) -> Directory:
    """Return what the server behind `channel` offers; `services` None: all of it but reflection. `timeout_s` is for all of it.

    `known` is what it offered before, and is returned itself where nothing has changed. `with_defaults` is the codecs'.

    Raises:
        DiscoveryFailed: it can't be reached, has no reflection, or its answers make no sense.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _Reflection(channel, timeout_s, metadata).directory(services, known, with_defaults)
    except TimeoutError:
        raise DiscoveryFailed(f"{channel.address} did not say within {timeout_s:g} s what it offers", retryable=True) from None
    except DescriptorError as exc:
        raise DiscoveryFailed(f"what {channel.address} says of itself can't be used: {exc}") from exc


class _Reflection:
    """One conversation with a server."""

    def __init__(self, channel: Channel, timeout_s: float, metadata: Metadata) -> None:
        self._channel = channel
        self._timeout_s = timeout_s
        self._metadata = metadata
        # Which of the two versions the server speaks, once it is known.
        self._method: str | None = None
        self._files: dict[str, FileDescriptorProto] = {}
        self._size = 0

    async def directory(self, services: Collection[str] | None, known: Directory | None, with_defaults: bool) -> Directory:
        """Ask for the services, then for their files and all that those import."""
        answer = await self._ask(ServerReflectionRequest(list_services="*"))
        offered = [service.name for service in answer.list_services_response.service]
        if len(offered) > SERVICES_LIMIT:
            raise DiscoveryFailed(f"{self._channel.address} offers {len(offered):,} services; allowed: {SERVICES_LIMIT:,}")
        wanted = [name for name in offered if name not in REFLECTION] if services is None else list(dict.fromkeys(services))
        unknown: dict[str, _Refused] = {}
        for name in wanted:
            if not self._has(name):
                try:
                    self._keep(await self._ask(ServerReflectionRequest(file_containing_symbol=name)))
                except _Refused as exc:
                    # A server may list what it has no descriptors for; the others are not to suffer for one that nobody asked for.
                    if services is not None or len(wanted) == 1:
                        raise
                    unknown[name] = exc
        wanted = [name for name in wanted if name not in unknown]
        while missing := missing_imports(self._files):
            for name in missing:
                self._keep(await self._ask(ServerReflectionRequest(file_by_filename=name)))
                if name not in self._files:
                    raise DiscoveryFailed(f"{self._channel.address} was asked for {name} and answered with other files")
        files = [*self._files.values()]
        if known is not None and known.fingerprint == fingerprint(files, wanted):
            return known
        for name, reason in unknown.items():
            log.warning(
                "a service is left out: its server can't describe it", address=self._channel.address, service=name, reason=str(reason)
            )
        # A large API takes a while, 0.2 s for 5,000 methods, in which streams go on.
        return await asyncio.to_thread(Directory, files, wanted, with_defaults=with_defaults)

    def _has(self, service: str) -> bool:
        package, _, name = service.rpartition(".")
        return any(file.package == package and any(known.name == name for known in file.service) for file in self._files.values())

    def _keep(self, answer: ServerReflectionResponse) -> None:
        for data in answer.file_descriptor_response.file_descriptor_proto:
            try:
                file = FileDescriptorProto.FromString(data)
            except DecodeError as exc:
                raise DiscoveryFailed(f"{self._channel.address} sent a file descriptor that is none") from exc
            if file.name not in self._files:
                self._files[file.name] = file
                self._size += len(data)
        if len(self._files) > FILES_LIMIT or self._size > BYTES_LIMIT:
            raise DiscoveryFailed(
                f"{self._channel.address} has more descriptors than {FILES_LIMIT:,} files of {BYTES_LIMIT:,} bytes in all"
            )

    async def _ask(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        """Return the one answer to a question."""
        methods: Iterable[str] = _METHODS if self._method is None else (self._method,)
        for method in methods:
            answer = FirstAnswer()
            call = self._channel.open_stream(
                method, request.SerializeToString(), answer, timeout_s=self._timeout_s, metadata=self._metadata
            )
            try:
                status = await answer.came
            finally:
                call.cancel()
            if status is not None and status.code is Code.UNIMPLEMENTED and self._method is None:
                continue
            self._method = method
            return self._read(request, answer, status)
        raise DiscoveryFailed(
            f"{self._channel.address} has no server reflection: turn it on there, or give `descriptor_set`, a file that"
            " protoc --descriptor_set_out=FILE --include_imports makes of the .proto files"
        )

    def _read(self, request: ServerReflectionRequest, answer: FirstAnswer, status: CallStatus | None) -> ServerReflectionResponse:
        address = self._channel.address
        if status is not None:
            if status.code is Code.OK:
                raise DiscoveryFailed(f"{address} ended its reflection without an answer")
            retryable = status.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
            raise DiscoveryFailed(f"{address} did not say what it offers: {status.code.name}: {status.message}", retryable=retryable)
        try:
            response = ServerReflectionResponse.FromString(answer.messages[0])
        except DecodeError as exc:
            raise DiscoveryFailed(f"{address} answered its reflection with something else") from exc
        if response.HasField("error_response"):
            error = response.error_response
            asked = request.file_containing_symbol or request.file_by_filename or "its services"
            code = Code.from_wire(error.error_code)
            raise _Refused(f"{address} was asked for {asked} and answered {code.name}: {error.error_message[:200]}")
        return response
