"""What a server offers: its services and methods, made from descriptors once and looked up for each request.

`Directory` is what discovery.py or a descriptor set becomes; whoever serves a service keeps one and replaces it as a whole.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool

from gateway.codec.protojson import Codecs, MessageCodec
from gateway.services.comments import descriptions
from gateway.services.descriptors import DescriptorError, build_pool
from gateway.services.httprules import rules_of
from gateway.services.method import Idempotency, Kind, Method

METHODS_LIMIT = 5_000
# A server's reflection is nobody's API; it is served when it is asked for by its name.
REFLECTION = frozenset({"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"})

_IDEMPOTENCY = {
    MethodOptions.NO_SIDE_EFFECTS: Idempotency.NO_SIDE_EFFECTS,
    MethodOptions.IDEMPOTENT: Idempotency.IDEMPOTENT,
}


@dataclass(frozen=True, eq=False)
class Service:
    """`methods` by their own names, in the order of the proto file."""

    name: str
    description: str
    deprecated: bool
    methods: Mapping[str, Method]


class Directory:
    """Services by their full names, and methods by theirs, `package.Service/Method`.

    `fingerprint` is the same for the same descriptors and the same choice of services.
    """

    def __init__(
        self, files: Iterable[FileDescriptorProto], services: Collection[str] | None = None, *, with_defaults: bool = False
    ) -> None:
        """Make all of it. `services` None: all that the files define, but reflection. `with_defaults` is the codecs'.

        Raises:
            DescriptorError: the files make no sense, a service is not in them, or there are more methods than METHODS_LIMIT.
        """
        given = [*files]
        pool, ordered = build_pool(given)
        self.fingerprint = fingerprint(given, services)
        self._pool: DescriptorPool = pool
        self._codecs = Codecs(pool, with_defaults=with_defaults)
        self._descriptions = descriptions(ordered)
        defined = [f"{file.package}.{service.name}" if file.package else service.name for file in ordered for service in file.service]
        if services is None:
            wanted = [name for name in defined if name not in REFLECTION]
        else:
            wanted = list(dict.fromkeys(services))
            for name in wanted:
                if name not in defined:
                    raise DescriptorError(_unknown(name, defined))
        self.services: Mapping[str, Service] = {name: self._service(name) for name in wanted}
        self.methods: Mapping[str, Method] = {
            method.full_name: method for service in self.services.values() for method in service.methods.values()
        }
        if len(self.methods) > METHODS_LIMIT:
            raise DescriptorError(f"there are {len(self.methods):,} methods; allowed: {METHODS_LIMIT:,}")

    def codec(self, type_name: str) -> MessageCodec | None:
        """Return the codec of a message by its full name or a type URL; None where the descriptors don't have it."""
        try:
            descriptor = self._pool.FindMessageTypeByName(type_name.rpartition("/")[2])
        except KeyError:
            return None
        return self._codecs.codec(descriptor)

    def _service(self, name: str) -> Service:
        descriptor = self._pool.FindServiceByName(name)
        return Service(
            name=name,
            description=self._descriptions.get(name, ""),
            deprecated=descriptor.GetOptions().deprecated,
            methods={method.name: self._method(name, method) for method in descriptor.methods},
        )

    def _method(self, service: str, descriptor: MethodDescriptor) -> Method:
        options = descriptor.GetOptions()
        return Method(
            service=service,
            name=descriptor.name,
            kind=_kind(descriptor.client_streaming, descriptor.server_streaming),
            request=self._codecs.codec(descriptor.input_type),
            response=self._codecs.codec(descriptor.output_type),
            http_rules=rules_of(descriptor),
            description=self._descriptions.get(descriptor.full_name, ""),
            deprecated=options.deprecated,
            idempotency=_IDEMPOTENCY.get(options.idempotency_level, Idempotency.UNKNOWN),
            descriptions=self._descriptions,
        )


def fingerprint(files: Iterable[FileDescriptorProto], services: Collection[str] | None) -> str:
    """Return what a Directory of these has for its own, without making it: the order of the files does not count."""
    digest = hashlib.sha256(repr(services if services is None else sorted(services)).encode())
    for text in sorted(file.SerializeToString(deterministic=True) for file in files):
        digest.update(text)
    return digest.hexdigest()


def _kind(client_streaming: bool, server_streaming: bool) -> Kind:
    if client_streaming:
        return Kind.BIDI if server_streaming else Kind.CLIENT_STREAMING
    return Kind.SERVER_STREAMING if server_streaming else Kind.UNARY


def _unknown(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ";"
    return f"there is no service {name}{hint} there are: {', '.join(sorted(known)[:20]) or 'none'}"
