"""Messages of any type, known by their descriptors only, to and from proto3 JSON.

`Codecs` makes one `MessageCodec` for each type of a pool. codec.py is the way in; without I/O.
"""

from gateway.codec.protojson.codec import WELL_KNOWN, Codecs, MessageCodec

__all__ = ["WELL_KNOWN", "Codecs", "MessageCodec"]
