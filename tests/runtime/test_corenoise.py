"""What a worker's log keeps of what grpc's core says."""

from __future__ import annotations

import logging

import pytest
from grpc._cython import cygrpc

from gateway.runtime import corenoise

LOGGER = logging.getLogger("grpc._cython.cygrpc")
TWICE = "Failed grpc_call_start_batch: 8 with grpc_call_error value: 'GRPC_CALL_ERROR_TOO_MANY_OPERATIONS'"


@pytest.mark.parametrize(
    ("error", "is_kept"),
    [(cygrpc.ExecuteBatchError(TWICE), False), (cygrpc.ExecuteBatchError("Failed: something else"), True), (ValueError(TWICE), True)],
)
def test_a_call_that_both_sides_end_is_no_error(error: Exception, is_kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    before = list(LOGGER.filters)
    corenoise.install()
    try:
        LOGGER.error("raised in core", exc_info=error)
        LOGGER.error("plain")
    finally:
        LOGGER.filters[:] = before
    assert caplog.messages == (["raised in core", "plain"] if is_kept else ["plain"])
