from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Affinity
from gateway.configured import pool_options, quota_limits
from gateway.runs.quotas import CallerLimits
from gateway.settings import PoolSettings, Settings, SettingsError, is_public, load


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` and no GATEWAY_ variable but a test's own."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper().startswith("GATEWAY_"):
            monkeypatch.delenv(name)


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    return path


def mistake(*arguments: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*arguments)
    return str(caught.value)


def test_defaults_are_those_of_the_protocol() -> None:
    settings = load()
    assert (settings.server.host, settings.server.port, settings.pools) == ("127.0.0.1", 8000, ())
    assert (settings.server.heartbeat_s, settings.server.first_byte_hold_s) == (10.0, 1.0)
    assert (settings.server.timeout_s, PoolSettings(adapter="x").queue_limit, PoolSettings(adapter="x").queue_timeout_s) == (
        300.0,
        1000,
        10.0,
    )


def test_each_source_goes_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path, "[server]\nport = 1\nhost = 'file'\nretry_ms = 1\nheartbeat_s = 1.0\ntimeout_s = 1\n")
    Path(".env").write_text("GATEWAY_SERVER__PORT=2\nGATEWAY_SERVER__HOST=dotenv\nGATEWAY_SERVER__RETRY_MS=2\n")
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "3")
    monkeypatch.setenv("GATEWAY_SERVER__HOST", "environment")
    server = load(path, {"server": {"port": 4}}).server
    assert (server.port, server.host, server.retry_ms, server.heartbeat_s, server.write_timeout_s) == (4, "environment", 2, 1.0, 30.0)


def test_pools_of_the_file_are_read(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        """
        [[pools]]
        adapter = "my_tools:Adapter"
        size = 4
        affinity = "strict_queue"
        env = { OMP_NUM_THREADS = "1" }
        [[pools]]
        name = "remote"
        addresses = ["dns:///workers:50051"]
        tools = ["predict"]
        payload = "auto"
        """,
    )
    local, remote = (pool_options(pool) for pool in load(path).pools)
    assert (local.name, local.kind, local.adapter, local.size, local.affinity) == (
        "default",
        "local",
        "my_tools:Adapter",
        4,
        Affinity.STRICT_QUEUE,
    )
    assert local.env == {"OMP_NUM_THREADS": "1"}
    assert (remote.name, remote.kind, remote.addresses, remote.tools) == ("remote", "addresses", ("dns:///workers:50051",), ("predict",))


def test_pools_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_POOLS", '[{"adapter":"a:B","size":3}]')
    assert [(pool.adapter, pool.size) for pool in load().pools] == [("a:B", 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", "server.prot: there is no such key; did you mean port?"),
        ("[server]\nzzzzzz = 1", "server.zzzzzz: there is no such key; known: host, port"),
        ("[servr]\nport = 1", "servr: there is no such key; did you mean server?"),
        ("[[pools]]\nadapter = 'x'\nsiez = 1", "pools.0.siez: there is no such key; did you mean size?"),
        ("[server]\nport = 99999", "server.port: Input should be less than or equal to 65535"),
        ("[server]\nport = 'x'", "server.port: Input should be a valid integer"),
        ("[server]\nheartbeat_s = 0", "server.heartbeat_s: "),
        ("[log]\nlevel = 'loud'", "log.level: "),
        ("[[pools]]\nname = 'a'", "pool 'a' has neither an adapter nor addresses"),
        ("[[pools]]\nadapter = 'x'\naddresses = ['y']", "both an adapter and addresses"),
        ("[[pools]]\nadapter = 'x'\nkind = 'addresses'", "makes it 'local'"),
        ("[[pools]]\nadapter = 'x'\n[[pools]]\nadapter = 'y'", "two pools are named default"),
        ("[[pools]]\nname = 'a b'\nadapter = 'x'", "pools.0.name: "),
        ("[server\n", "gateway.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_told_where_and_what(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in mistake(config(tmp_path, text))


def test_two_mistakes_are_two_lines(tmp_path: Path) -> None:
    assert len(mistake(config(tmp_path, "[server]\nport = -1\nprot = 1")).splitlines()) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert mistake(tmp_path / "none.toml") == f"{tmp_path}/none.toml: there is no such file"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GATEWAY_SERVER__PROT", "1", "server.prot: there is no such key; did you mean port?"),
        ("GATEWAY_SERVR__PORT", "1", "GATEWAY_SERVR__PORT: there is no such variable; did you mean GATEWAY_SERVER__PORT?"),
        ("GATEWAY_PORT", "1", "GATEWAY_PORT: there is no such variable; did you mean GATEWAY_SERVER__PORT?"),
        ("GATEWAY_SERVER__PORT", "many", "server.port: "),
        ("GATEWAY_POOLS", "[", "pools"),
    ],
)
@pytest.mark.parametrize("source", ["environment", ".env"])
def test_a_mistake_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch, source: str, name: str, value: str, expected: str) -> None:
    if source == "environment":
        monkeypatch.setenv(name, value)
    else:
        Path(".env").write_text(f"{name}={value}\n")
    message = mistake()
    assert expected.lower() in message.lower()
    assert "None" not in message


def test_other_programs_variables_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_URL", "http://localhost:1")  # the client commands' own
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    Path(".env").write_text("DATABASE_URL=postgres://\nGATEWAY_SERVER__PORT=5\n")
    assert load().server.port == 5


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().server = None  # type: ignore[assignment, misc]


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("127.0.0.1", False),
        ("127.3.4.5", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.1", True),
        ("box", True),
    ],
)
def test_is_public_knows_loopback(host: str, public: bool) -> None:
    assert is_public(host) is public


def test_the_run_log_has_a_section_of_its_own(tmp_path: Path) -> None:
    kept = load(config(tmp_path, "[runlog]\nurl = 'memory://'\nrun_limit_bytes = 1000\nlimit_bytes = 5000\nttl_s = 5\n")).runlog
    assert (kept.run_limit_bytes, kept.limit_bytes, kept.ttl_s, kept.kept_runs_limit) == (1000, 5000, 5.0, 10_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[runlog]\nurl = 'file:///tmp'", "runlog.url: "),
        ("[runlog]\nttl = 5", "runlog.ttl: there is no such key; did you mean ttl_s?"),
        ("[runlog]\nttl_s = 0", "runlog.ttl_s: "),
    ],
)
def test_a_mistake_in_the_run_log_is_told(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in mistake(config(tmp_path, text))


def test_a_callers_own_table_goes_before_everybodys_and_0_is_no_limit(tmp_path: Path) -> None:
    text = "[limits]\nstreams = 5\nbytes_per_minute = 1000\n[limits.callers.'key:vip']\nstreams = 0\nstarts_per_minute = 7\n"
    limits = quota_limits(load(config(tmp_path, text)).limits)
    assert limits.default == CallerLimits(streams=5, bytes_per_minute=1000)
    assert limits.callers == {"key:vip": CallerLimits(starts_per_minute=7, bytes_per_minute=1000)}


def test_a_wrong_key_of_a_callers_limits_is_named(tmp_path: Path) -> None:
    text = "[limits.callers.vip]\nstream = 1\n"
    assert "limits.callers.vip.stream: there is no such key; did you mean streams?" in mistake(config(tmp_path, text))


@pytest.mark.parametrize(
    ("server", "line"),
    [
        ({"allowed_origins": ["https://app.example/"]}, r"server\.allowed_origins\.0: .*'https://app\.example/' is not an origin"),
        ({"allowed_origins": ["null"]}, "every sandboxed page"),
        ({"allowed_hosts": ["http://gateway"]}, r"server\.allowed_hosts\.0: .*'http://gateway' is not a host"),
        ({"trusted_proxies": ["proxy"]}, r"server\.trusted_proxies\.0: .*'proxy' is neither an address nor a network"),
        ({"allowed_origins": ["*"], "allowed_credentials": True}, "allowed_credentials: .* name the origins"),
    ],
)
def test_a_wrong_rule_of_exposure_is_named(server: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        load(overrides={"server": server})


def test_origins_and_hosts_are_read_as_browsers_write_them() -> None:
    server = load(overrides={"server": {"allowed_origins": ["HTTPS://App.example:443"], "allowed_hosts": ["Gateway.Example:8000"]}}).server
    assert (server.allowed_origins, server.allowed_hosts) == (("https://app.example",), ("gateway.example:8000",))
