from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PROBLEMS, Code, FieldError, GatewayError, RpcFailed, ToolFailed
from gateway.events import ChunkAttributes, Ended, Marks, Outcome, Status, Timing
from gateway.runlog.memory import CHUNK_OVERHEAD_BYTES
from gateway.runlog.shared.entries import decode_chunks, decode_end, decode_status, encode_chunks, encode_end, encode_status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)
WORDS = st.dictionaries(st.text(), st.text(), max_size=3)
MARKS = st.lists(st.builds(ChunkAttributes, st.just(True), WORDS, st.none(), st.none() | st.text()), max_size=2).map(tuple)
ATTRIBUTES = st.builds(ChunkAttributes, st.booleans(), WORDS, st.none() | st.binary(), st.none() | st.text(), MARKS)
ERRORS = st.builds(
    GatewayError,
    st.sampled_from(sorted(PROBLEMS)),
    st.text(),
    errors=st.lists(st.builds(FieldError, st.text(), st.text()), max_size=2),
    retry_after_s=st.none() | st.floats(0, 1000),
    extra=st.dictionaries(st.text(), JSON, max_size=2),
)
FAILURES = st.builds(
    ToolFailed,
    st.sampled_from(Code),
    st.text(),
    error_type=st.none() | st.text(),
    traceback=st.none() | st.text(),
    details=JSON,
    raw=st.none() | st.text(),
)
RPC_FAILURES = st.builds(
    RpcFailed,
    st.sampled_from(Code),
    st.text(),
    errors=st.lists(st.builds(FieldError, st.text(), st.text()), max_size=2),
    retry_after_s=st.none() | st.floats(0, 1000),
    details=st.lists(st.dictionaries(st.text(), JSON, max_size=2), max_size=2),
)
COUNTS = st.integers(0, 2**40)
TIMINGS = st.builds(Timing, st.none() | COUNTS, st.none() | COUNTS, COUNTS)


@given(st.integers(1, 2**60), st.lists(st.binary(), min_size=1), st.data())
def test_a_batch_is_read_as_it_was_written(first: int, payloads: list[bytes], data: st.DataObject) -> None:
    attributes = data.draw(st.none() | st.dictionaries(st.integers(first, first + len(payloads) - 1), ATTRIBUTES, min_size=1))
    read = decode_chunks(encode_chunks(first, payloads, attributes))
    assert (read.first, read.payloads, read.attributes) == (first, payloads, attributes)
    size = sum(map(len, payloads)) + CHUNK_OVERHEAD_BYTES * len(payloads)
    assert size <= read.size_bytes <= size + len(payloads)


@pytest.mark.parametrize("data", [b"", b"x", encode_chunks(1, [b"a", b"b\n"], None)[:-3], b"\x09" + encode_chunks(1, [b"a"], None)[1:]])
def test_what_is_no_batch_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a batch of chunks"):
        decode_chunks(data)


@given(st.text(), st.dictionaries(st.text(), JSON))
def test_a_status_is_read_as_it_was_written(state: str, details: dict[str, object]) -> None:
    status = Status(state, details)
    assert decode_status(encode_status(status)) == status


@given(st.sampled_from(Outcome), COUNTS, WORDS, st.none() | TIMINGS, st.none() | ERRORS | FAILURES | RPC_FAILURES, MARKS)
def test_an_end_is_read_as_it_was_written(
    outcome: Outcome, chunks: int, metadata: dict[str, str], timing: Timing | None, error: GatewayError | None, marks: Marks
) -> None:
    read = decode_end(encode_end(Ended(outcome, chunks, metadata, timing, error, marks)), chunks)
    assert (read.outcome, read.chunks, read.metadata, read.timing, read.marks) == (outcome, chunks, metadata, timing, marks)
    assert type(read.error) is type(error)
    assert vars(read.error) == vars(error) if error is not None and read.error is not None else read.error is error
    if error is not None and read.error is not None:
        assert read.error.document("/v1/runs/r") == error.document("/v1/runs/r")


def test_a_problem_of_a_later_version_is_read_as_internal() -> None:
    data = encode_end(Ended(Outcome.ERROR, 0, error=GatewayError("internal", "d"))).replace(b'"internal"', b'"of-tomorrow"')
    error = decode_end(data, 0).error
    assert error is not None
    assert (error.problem, error.detail) == ("internal", "d")
