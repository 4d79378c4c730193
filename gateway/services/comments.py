"""The comments of proto files as descriptions, by the full names of what they stand at; directory.py and schema.py use them.

There are some where the descriptors were made with `--include_source_info`. Source: SourceCodeInfo in descriptor.proto (a location's
path is the way from the file to the thing: field numbers and indices in turn).
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor_pb2 import FileDescriptorProto

# What the numbers in a path lead to: from a file, from a message, from an enum, from a service.
_FILE = {4: "message_type", 5: "enum_type", 6: "service"}
_MESSAGE = {2: "field", 3: "nested_type", 4: "enum_type", 8: "oneof_decl"}
_BELOW = {
    "message_type": _MESSAGE,
    "nested_type": _MESSAGE,
    "enum_type": {2: "value"},
    "service": {2: "method"},
}
TEXT_LIMIT = 4_000


def descriptions(files: Iterable[FileDescriptorProto]) -> dict[str, str]:
    """Return the comments in front of (else behind) messages, fields, enums, values, services and methods."""
    found: dict[str, str] = {}
    for file in files:
        for location in file.source_code_info.location:
            text = (location.leading_comments or location.trailing_comments).strip()
            if text:
                name = _name(file, location.path)
                if name is not None:
                    found[name] = _joined(text)
    return found


def _name(file: FileDescriptorProto, path: Iterable[int]) -> str | None:
    """Return the full name of what a path leads to; None where it leads to something else, or nowhere."""
    numbers = [*path]
    if not numbers or len(numbers) % 2:
        return None
    names = [file.package] if file.package else []
    thing: object = file
    steps = _FILE
    for number, index in zip(numbers[::2], numbers[1::2], strict=True):
        member = steps.get(number)
        if member is None:
            return None
        things = getattr(thing, member)
        if not 0 <= index < len(things):
            return None
        thing = things[index]
        names.append(things[index].name)
        steps = _BELOW.get(member, {})
    return ".".join(names)


def _joined(text: str) -> str:
    """Return a comment with its lines made paragraphs, as Markdown reads them, and cut to TEXT_LIMIT."""
    lines = [line.removeprefix(" ").rstrip() for line in text.splitlines()]
    joined = "\n".join(lines).strip()
    return joined if len(joined) <= TEXT_LIMIT else joined[: TEXT_LIMIT - 1] + "…"
