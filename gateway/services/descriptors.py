"""Descriptors of a service's own: a pool for each, so that two services may each have a type of the same name.

They come from reflection or from a file (`protoc --descriptor_set_out --include_imports --include_source_info`), and neither is
trusted: how much there may be is bounded, and what does not fit together is told in words. Google's own files
(google/protobuf, google/api, google/rpc) are supplied where they are missing.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

BYTES_LIMIT = 16 << 20
FILES_LIMIT = 2_000
# Files that import one another in a row.
DEPTH_LIMIT = 200

_SUPPLIED: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"{name}.proto": f"{name.replace('/', '.')}_pb2"
        for name in (
            *(f"google/protobuf/{part}" for part in ("any", "api", "descriptor", "duration", "empty", "field_mask")),
            *(f"google/protobuf/{part}" for part in ("source_context", "struct", "timestamp", "type", "wrappers")),
            *(f"google/api/{part}" for part in ("annotations", "client", "field_behavior", "http", "httpbody", "resource")),
            *(f"google/rpc/{part}" for part in ("code", "error_details", "status")),
        )
    }
)

# What an Any may hold whether or not the service's files import it; each behind what it imports.
_FOR_ANY = (
    *(f"google/protobuf/{part}.proto" for part in ("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")),
    *(f"google/rpc/{part}.proto" for part in ("error_details", "status")),
)


class DescriptorError(ValueError):
    """Descriptors that can't be used; the message says which and why."""


def read_descriptor_set(data: bytes) -> list[FileDescriptorProto]:
    """Return the files in a FileDescriptorSet as protoc writes it.

    Raises:
        DescriptorError: it is none, it is empty, or too large.
    """
    if len(data) > BYTES_LIMIT:
        raise DescriptorError(f"the descriptor set has {len(data):,} bytes; allowed: {BYTES_LIMIT:,}")
    try:
        files = list(FileDescriptorSet.FromString(data).file)
    except DecodeError as exc:
        raise DescriptorError("not a descriptor set: make one with protoc --descriptor_set_out=FILE --include_imports") from exc
    if not files:
        raise DescriptorError("the descriptor set has no files")
    return files


def supplied(name: str) -> FileDescriptorProto | None:
    """Return one of Google's own files by its name; None for any other."""
    module = _SUPPLIED.get(name)
    if module is None:
        return None
    file = FileDescriptorProto()
    importlib.import_module(module).DESCRIPTOR.CopyToProto(file)
    return file


def missing_imports(files: Mapping[str, FileDescriptorProto]) -> list[str]:
    """Return the names that these files import and that are neither among them nor supplied, in order."""
    return sorted({name for file in files.values() for name in file.dependency if name not in files and name not in _SUPPLIED})


def build_pool(files: Iterable[FileDescriptorProto]) -> tuple[DescriptorPool, list[FileDescriptorProto]]:
    """Return a pool of these files, of what they import and of what any Any may hold, and the files in the order of their imports.

    A file that comes twice counts once.

    Raises:
        DescriptorError: there is too much, an import is missing, or a file makes no sense.
    """
    known: dict[str, FileDescriptorProto] = {}
    size = 0
    for file in files:
        if file.name not in known:
            known[file.name] = file
            size += file.ByteSize()
            if len(known) > FILES_LIMIT or size > BYTES_LIMIT:
                raise DescriptorError(f"too many descriptors: allowed are {FILES_LIMIT:,} files of {BYTES_LIMIT:,} bytes in all")
    ordered = _in_order(known)
    pool = DescriptorPool()
    for file in ordered:
        try:
            pool.AddSerializedFile(file.SerializeToString())
        except (TypeError, ValueError) as exc:
            raise DescriptorError(f"{file.name}: {_words(exc)}") from exc
    for name in _FOR_ANY:
        if name not in known and (own := supplied(name)) is not None:
            # Where a file of another name has these types, its own count.
            with contextlib.suppress(TypeError, ValueError):
                pool.AddSerializedFile(own.SerializeToString())
    return pool, ordered


def _in_order(known: dict[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Return the files, and those of Google's that they need, each behind what it imports."""
    ordered: dict[str, FileDescriptorProto] = {}
    for root in [*known]:
        # A file and how many of its imports were looked at: no recursion, since how deep they go is the sender's to say.
        path: list[tuple[str, int]] = [(root, 0)]
        while path:
            name, position = path.pop()
            if name in ordered:
                continue
            file = known[name]
            if position == len(file.dependency):
                ordered[name] = file
                continue
            path.append((name, position + 1))
            needed = file.dependency[position]
            if needed in ordered:
                continue
            if needed not in known:
                found = supplied(needed)
                if found is None:
                    raise DescriptorError(f"{name} imports {needed}, which is not there; protoc adds it with --include_imports")
                known[needed] = found
            if len(path) >= DEPTH_LIMIT or any(needed == above for above, _ in path):
                raise DescriptorError(f"{name} imports {needed}, and so itself or more than {DEPTH_LIMIT} files in a row")
            path.append((needed, 0))
    return [*ordered.values()]


def _words(exc: Exception) -> str:
    return str(exc).partition("\n")[0].replace("Couldn't build proto file into descriptor pool: ", "")[:300]
