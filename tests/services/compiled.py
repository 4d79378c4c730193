"""The files in tests/services/protos, compiled when they are first asked for: into descriptors and a pool of their own, no modules."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import google.api
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

PROTOS = Path(__file__).parent / "protos"
# Where google/protobuf and google/api come from.
INCLUDES = (Path(protoc.__file__).parent / "_proto", Path(next(iter(google.api.__path__))).parent.parent)


def compile_protos(*names: str, folder: Path = PROTOS) -> bytes:
    """Return the descriptor set of proto files, with all that they import and their comments."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "set"
        code = protoc.main(
            [
                "protoc",
                f"-I{folder}",
                *(f"-I{include}" for include in INCLUDES),
                f"--descriptor_set_out={target}",
                "--include_imports",
                "--include_source_info",
                *names,
            ]
        )
        assert code == 0, f"protoc ended with {code}"
        return target.read_bytes()


@functools.cache
def descriptor_set() -> bytes:
    """Return the descriptor set of all files there."""
    return compile_protos(*sorted(path.name for path in PROTOS.glob("*.proto")))


def files() -> list[FileDescriptorProto]:
    """Return its files."""
    return list(FileDescriptorSet.FromString(descriptor_set()).file)


@functools.cache
def pool() -> DescriptorPool:
    """Return a pool of them."""
    made = DescriptorPool()
    for file in files():
        made.AddSerializedFile(file.SerializeToString())
    return made


@functools.cache
def message(name: str) -> Any:
    """Return the class of a message by its name: `library.v1.Book`, for test.library.v1.Book; or by its full name."""
    full_name = name if name.startswith("google.") else f"test.{name}"
    return GetMessageClass(pool().FindMessageTypeByName(full_name))
