"""Which settings differ, and what is made of it; reloads with real processes are in e2e/test_reload.py."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.app import Gateway
from gateway.reload import Reload, differences, is_part
from gateway.settings import LimitSettings, LogSettings, PoolSettings, ServerSettings, Settings, SettingsError


def settings(**sections: Any) -> Settings:
    return Settings(pools=(PoolSettings(addresses=("unix:/nowhere",)),), **sections)


def test_differences_are_named_as_the_file_has_them() -> None:
    before = settings()
    after = settings(server=ServerSettings(port=1, retry_ms=2), limits=LimitSettings(streams=3))
    assert differences(before, before) == []
    assert differences(before, after) == ["server.port", "server.retry_ms", "limits.streams"]
    assert differences(before, Settings()) == ["pools"]


@pytest.mark.parametrize(
    ("setting", "name", "is_one"),
    [("limits.streams", "limits", True), ("log.level", "log.level", True), ("log.level", "log.format", False), ("logs.a", "log", False)],
)
def test_a_name_stands_for_a_setting_or_for_its_section(setting: str, name: str, is_one: bool) -> None:
    assert is_part(setting, name) is is_one


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    async def change(settings: Settings) -> None:
        pass

    gateway = Gateway(settings())
    monkeypatch.setattr(gateway, "change_pools", change)
    return gateway


async def test_each_part_is_told_of_its_own_settings_only(gateway: Gateway) -> None:
    told: list[str] = []
    gateway.reloads = {name: lambda _, name=name: told.append(name) for name in ("limits", "log.level", "server.port")}  # type: ignore[misc]
    wanted = settings(limits=LimitSettings(streams=3), log=LogSettings(format="json"))
    with capture_logs() as logs:
        await Reload(gateway, lambda: wanted).now()
    assert told == ["limits"]
    assert [(line["event"], line.get("changed") or line.get("settings")) for line in logs] == [
        ("reloaded", ["limits.streams"]),
        ("needs a restart", ["log.format"]),
    ]


async def test_what_needs_a_restart_is_said_until_it_is_as_it_was(gateway: Gateway) -> None:
    versions = [settings(server=ServerSettings(port=1)), settings(server=ServerSettings(port=1)), settings()]
    reload = Reload(gateway, lambda: versions.pop(0))
    for expected in (1, 1, 0):
        with capture_logs() as logs:
            await reload.now()
        assert sum(line["event"] == "needs a restart" for line in logs) == expected


async def test_settings_that_cannot_be_used_change_nothing(gateway: Gateway) -> None:
    def refuse() -> Settings:
        raise SettingsError("server.prot: there is no such key; did you mean port?")

    before = gateway.settings
    with capture_logs() as logs:
        await Reload(gateway, refuse).now()
    assert gateway.settings is before
    assert [line["reason"] for line in logs] == ["server.prot: there is no such key; did you mean port?"]
