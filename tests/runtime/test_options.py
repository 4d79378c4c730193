"""options.py and heartbeat.py: the command line and the environment."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.runtime.heartbeat import HeartbeatSettings, beat
from gateway.runtime.options import parse

SNAKEPIT = """
--adapter a.B --port 0 --elixir-address localhost:50051
--snakepit-run-id r --snakepit-instance-name n --snakepit-instance-token t
--heartbeat-enabled --heartbeat-interval-ms 100 --heartbeat-timeout-ms 200 --heartbeat-max-missed 5
--heartbeat-initial-delay-ms 7 --heartbeat-independent
"""


def test_defaults_are_loopback_one_execution_and_no_host() -> None:
    given = parse(["--adapter", "a:B"], {})
    assert (given.listen, given.concurrency, given.host_address, given.ready_file) == ("127.0.0.1:0", 1, None, None)
    assert (given.stop_timeout_s, given.drain_timeout_s, given.own_process_group) == (10.0, 2.0, False)
    assert given.log_level == logging.WARNING
    assert given.heartbeat == HeartbeatSettings()


def test_snakepits_whole_command_line_is_understood() -> None:
    given = parse(SNAKEPIT.split(), {})
    assert given.host_address == "localhost:50051"
    assert given.heartbeat == HeartbeatSettings(True, 100, 200, 5, 7, 0, dependent=False)


def test_environment_is_snakepits() -> None:
    given = parse(
        ["--adapter", "a:B"],
        {
            "SNAKEPIT_GRPC_ADDRESS": "h:1",
            "SNAKEPIT_ELIXIR_ADDRESS": "h:2",
            "SNAKEPIT_READY_FILE": "/tmp/r",
            "SNAKEPIT_PROCESS_GROUP": "Yes",
            "SNAKEPIT_LOG_LEVEL": "none",
            "SNAKEPIT_HEARTBEAT_CONFIG": '{"enabled": false, "intervalMs": 50, "max_missed_heartbeats": 9, "x": 1, "timeoutMs": null}',
        },
    )
    assert (given.host_address, given.ready_file, given.own_process_group) == ("h:1", "/tmp/r", True)
    assert given.log_level > logging.CRITICAL
    assert given.heartbeat == HeartbeatSettings(enabled=False, interval_ms=50, max_missed_heartbeats=9)
    assert parse(["--adapter", "a:B"], {"SNAKEPIT_ELIXIR_ADDRESS": "h:2"}).host_address == "h:2"


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        ([], {}),
        (["--adapter", "a:B", "--concurrency", "0"], {}),
        (["--adapter", "a:B", "--nope"], {}),
        (["--adapter", "a:B"], {"SNAKEPIT_HEARTBEAT_CONFIG": "[1]"}),
        (["--adapter", "a:B"], {"SNAKEPIT_HEARTBEAT_CONFIG": "{"}),
    ],
)
def test_wrong_usage_exits_2(argv: list[str], environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv, environ)
    assert caught.value.code == 2
    assert "usage: python -m gateway.runtime" in capsys.readouterr().err


async def test_dependent_worker_gives_up_after_misses_in_a_row_only() -> None:
    answers = iter([True, False, False, True, False, False, False])
    lost: list[str] = []

    async def send(session_id: str, timeout_s: float) -> bool:
        assert (session_id, timeout_s) == ("s", 0.2)
        return next(answers)

    settings = HeartbeatSettings(interval_ms=1, timeout_ms=200, max_missed_heartbeats=3)
    await asyncio.wait_for(beat(settings, "s", send, lambda: lost.append("lost")), 5)
    assert lost == ["lost"]
    assert next(answers, "used up") == "used up"
