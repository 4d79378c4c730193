"""What all of the gateway's gRPC listeners have in common: the front door, the host of Snakepit's workers, the host tools' socket."""

from __future__ import annotations

from typing import Final

from gateway.transport.base import MESSAGE_LIMIT_BYTES, METADATA_LIMIT_BYTES

SERVER_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_LIMIT_BYTES),
    # Two gateways on one port would each get some of the calls.
    ("grpc.so_reuseport", 0),
)
