"""Keeps out of a worker's log what grpc's core says of a call that was reset in the very moment in which it ended.

Both sides end such a call, the core refuses the second end, and grpc.aio logs that as an error with a traceback, though nobody has
lost anything: whoever reset the call waits for no answer. Installed by serve.py.
"""

from __future__ import annotations

import logging

_LOGGER = "grpc._cython.cygrpc"


class EndedTwice(logging.Filter):
    """Lets everything through but that."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return type(error).__name__ != "ExecuteBatchError" or "TOO_MANY_OPERATIONS" not in str(error)


def install() -> None:
    """Keep it out from now on."""
    logging.getLogger(_LOGGER).addFilter(EndedTwice())
