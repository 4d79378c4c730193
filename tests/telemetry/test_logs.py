"""The console's log lines: a traceback shows where, never what was in a frame."""

from __future__ import annotations

import sys

from gateway.telemetry.logs import _console


def test_a_traceback_on_a_terminal_shows_no_locals() -> None:
    def fail(credential: str) -> None:
        raise RuntimeError("boom")

    try:
        fail("gw_" + "secret")
    except RuntimeError:
        text = str(_console()(None, "error", {"event": "unexpected error", "exc_info": sys.exc_info()}))
    assert "boom" in text
    assert "gw_secret" not in text
