"""The runtime's bounds: what one execution may hold in memory and what one message may carry."""

from __future__ import annotations

# A tool runs ahead of its reader by this much, then waits.
BUFFER_LIMIT_CHUNKS = 1024
BUFFER_LIMIT_BYTES = 1 << 20

# One ToolChunks message: all that is queued, but not beyond this after its first chunk.
BATCH_LIMIT_CHUNKS = 1024
BATCH_LIMIT_BYTES = 256 << 10

# Snakepit's limit for one message on either side; a payload leaves room for id and metadata.
MESSAGE_LIMIT_BYTES = 100 << 20
PAYLOAD_LIMIT_BYTES = MESSAGE_LIMIT_BYTES - (1 << 20)

# Room for status messages: gRPC's default of 8 KiB would turn a call with a long one into RESOURCE_EXHAUSTED.
METADATA_LIMIT_BYTES = 1 << 20
# What the worker itself puts there, percent-encoded: fits a client that did not raise its own limit.
DETAIL_LIMIT_BYTES = 6 << 10
