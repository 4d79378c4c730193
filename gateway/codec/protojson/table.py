"""What the reader has to know of a message type: made once from its descriptor (tables.py), looked into for each field on the wire.

Plain classes of plain parts, which machine code reads without looking names up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any as JsonValue
from typing import Final, final

# How a value stands on the wire and what it is in JSON. The order is used: varints first, then what has 4 bytes, 8 bytes, a length.
INT32: Final = 0
UINT32: Final = 1
SINT32: Final = 2
INT64: Final = 3
UINT64: Final = 4
SINT64: Final = 5
BOOL: Final = 6
ENUM: Final = 7
NULL: Final = 8
FIXED32: Final = 9
SFIXED32: Final = 10
FLOAT: Final = 11
FIXED64: Final = 12
SFIXED64: Final = 13
DOUBLE: Final = 14
STRING: Final = 15
BYTES: Final = 16
MESSAGE: Final = 17

# How many values a field has: one; one more for each time it is there; any number in one piece; one more entry.
SINGLE: Final = 0
REPEATED: Final = 1
PACKED: Final = 2
MAP: Final = 3

# What a message is in JSON: an object of its fields, or a form of its own.
OBJECT: Final = 0
TIMESTAMP: Final = 1
DURATION: Final = 2
FIELD_MASK: Final = 3
STRUCT: Final = 4
LIST_VALUE: Final = 5
VALUE: Final = 6
WRAPPER: Final = 7
ANY: Final = 8

# Tags of one byte are found in a list.
SMALL_TAGS: Final = 128


@final
class Field:
    """A field under one of its tags: a repeated number has two, packed and not.

    `zero` is the default value in JSON; with `implicit` it is left out. `others` are the names of the other members of its oneof.
    `names` are an enum's by number; a number that is not there is read by the library where the enum `is_closed`.
    A map has its entry's two fields.
    """

    __slots__ = ("implicit", "is_closed", "key", "kind", "name", "names", "others", "shape", "table", "tag", "value", "zero")

    def __init__(self, name: str, tag: int, kind: int, shape: int) -> None:
        self.name = name
        self.tag = tag
        self.kind = kind
        self.shape = shape
        self.zero: JsonValue = None
        self.implicit = False
        self.is_closed = False
        self.others: list[str] | None = None
        self.names: dict[int, str] | None = None
        self.table: Table | None = None
        self.key: Field | None = None
        self.value: Field | None = None


@final
class Table:
    """A message type. `is_extendable`: a field that is not here may be an extension, which the library knows.

    `find` is the table of a type by its name, for what an Any holds; None: nobody knows it. `defaults` are written where the fields are not
    set; None: nothing is.
    """

    __slots__ = ("defaults", "fields", "find", "is_extendable", "kind", "name", "small")

    def __init__(self, name: str, kind: int, find: Callable[[str], Table | None]) -> None:
        self.name = name
        self.kind = kind
        self.find = find
        self.is_extendable = False
        self.defaults: dict[str, JsonValue] | None = None
        self.small: list[Field | None] = [None] * SMALL_TAGS
        self.fields: dict[int, Field] = {}
