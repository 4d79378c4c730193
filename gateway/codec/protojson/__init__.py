"""Messages of any type, known by their descriptors only, to and from proto3 JSON.

`Codecs` makes one `MessageCodec` for each type of a pool; codec.py is the way in. To JSON, reader.py goes over the bytes by
tables that tables.py makes of the descriptors; to a message, checker.py looks what is wrong and the library does the rest.
"""

from gateway.codec.protojson.codec import Codecs, MessageCodec
from gateway.codec.protojson.tables import WELL_KNOWN, default_of

__all__ = ["WELL_KNOWN", "Codecs", "MessageCodec", "default_of"]
