from __future__ import annotations

from structlog.testing import capture_logs

from gateway.workers.output import LINE_LIMIT_BYTES, LINES_PER_S, TAIL_LINES, OutputReader


async def test_lines_cut_anywhere_are_logged_whole() -> None:
    reader = OutputReader("p-1", "p")
    with capture_logs() as logs:
        for piece in (b"fir", b"st\nsec", b"ond\n\nlast"):
            reader.data_received(piece)
        reader.connection_lost(None)
    assert [(entry["worker"], entry["line"]) for entry in logs] == [("p-1", "first"), ("p-1", "second"), ("p-1", "last")]
    assert reader.closed.is_set()


async def test_tail_keeps_the_last_lines_only() -> None:
    reader = OutputReader("p-1", "p")
    reader.data_received(b"".join(b"line %d\n" % n for n in range(100)))
    assert list(reader.tail) == [f"line {n}" for n in range(100 - TAIL_LINES, 100)]


async def test_endless_line_is_cut_and_never_kept_whole() -> None:
    reader = OutputReader("p-1", "p")
    for _ in range(10):
        reader.data_received(b"x" * LINE_LIMIT_BYTES)
    assert all(len(line) <= LINE_LIMIT_BYTES for line in reader.tail)
    assert len(reader._partial) <= LINE_LIMIT_BYTES


async def test_flood_reaches_the_log_only_up_to_its_limit() -> None:
    reader = OutputReader("p-1", "p")
    with capture_logs() as logs:
        reader.data_received(b"x\n" * (LINES_PER_S * 10))
    assert LINES_PER_S <= len(logs) <= 2 * LINES_PER_S


async def test_bytes_that_are_not_text_do_not_stop_the_reading() -> None:
    reader = OutputReader("p-1", "p")
    reader.data_received(b"\xff\xfe\nnext\n")
    assert reader.tail[-1] == "next"


async def test_a_line_of_a_runs_own_is_logged_as_that() -> None:
    reader = OutputReader("p-1", "p")
    run = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"
    with capture_logs() as logs:
        reader.data_received(f"2026-01-01 INFO tool [{run}]: at work\nprinted [r_x]: no\n".encode())
    assert [(entry.get("run"), entry["pool"]) for entry in logs] == [(run, "p"), (None, "p")]
