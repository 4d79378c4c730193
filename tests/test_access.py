"""When authentication is on, what can't be started, and that keys are read again in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from gateway.access import Access
from gateway.auth.keys import line_of, new_secret
from gateway.settings import Algorithm, AuthSettings, ServerSettings, Settings, SettingsError, check_exposure

LINE = line_of("ci", new_secret(), ["tools:*"])
JWKS = {"jwks": "https://id.example.com/jwks.json", "issuer": "https://id.example.com/", "audience": "gateway"}


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, False),
        ({"keys": LINE}, True),
        ({"keys_file": "keys"}, True),
        (JWKS, True),
        ({"mode": "off", "keys": LINE}, False),
        ({"mode": "on", "keys": LINE}, True),
    ],
)
def test_it_is_on_where_somebody_could_come_in(settings: dict[str, Any], on: bool) -> None:
    assert AuthSettings(**settings).is_on is on


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "on"}, "nobody could come in"),
        ({"jwks": "https://id.example.com/jwks.json", "issuer": "x"}, "issuer and audience"),
        ({"secret": "short"}, "less than 32"),
        ({"algorithms": ("HS256",)}, "ES256"),
        ({"algorithms": ()}, "at least 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        AuthSettings(**settings)
    assert "short" not in str(caught.value).replace("string_too_short", "").partition("[type")[0]


def test_no_algorithm_is_symmetric() -> None:
    assert not [name for name in get_args(Algorithm) if name.startswith("HS") or name == "none"]


PUBLIC = [{"host": "0.0.0.0"}, {"host": "::"}, {"grpc_address": "0.0.0.0:50051"}, {"grpc_address": "[::]:50051"}, {"host": "10.1.2.3"}]
PRIVATE = [
    {},
    {"host": "localhost"},
    {"grpc_address": ""},
    {"grpc_address": "unix:/run/gateway"},
    {"grpc_address": "[::1]:5"},
    {"grpc_address": "localhost:5"},
]


@pytest.mark.parametrize("server", PUBLIC)
def test_a_public_address_needs_authentication_or_a_word_that_it_does_not(server: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"gateway keys new .*--insecure"):
        check_exposure(Settings(server=ServerSettings(**server)))
    with pytest.raises(SettingsError):
        check_exposure(Settings(server=ServerSettings(**server), auth=AuthSettings(mode="off", keys=LINE)))
    check_exposure(Settings(server=ServerSettings(**server), auth=AuthSettings(keys=LINE)))
    check_exposure(Settings(server=ServerSettings(**server, insecure=True)))


@pytest.mark.parametrize("server", PRIVATE)
def test_loopback_needs_none(server: dict[str, Any]) -> None:
    check_exposure(Settings(server=ServerSettings(**server)))


def test_keys_of_the_file_and_of_the_settings_are_in_force_together(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{line_of('file', new_secret(), ['admin'])}\n")
    assert len(Access(AuthSettings(keys_file=path, keys=LINE), ()).keys) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [("nonsense", "keys: line 1"), (LINE, "'ci' is in auth.keys as well"), (None, "auth.keys_file")],
    ids=["nonsense", "doubled", "missing"],
)
def test_keys_that_cannot_be_read_are_a_mistake_in_the_settings(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        Access(AuthSettings(keys_file=path, keys=LINE), ())


def test_reloading_takes_the_new_keys_or_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    old, new = new_secret(), new_secret()
    path.write_text(line_of("a", old, ["admin"]))
    access = Access(AuthSettings(keys_file=path), ())
    path.write_text("nonsense")
    with pytest.raises(SettingsError):
        access.prepare(AuthSettings(keys_file=path))
    assert access.keys.find(old) is not None
    path.write_text(line_of("a", new, ["admin"]))
    take = access.prepare(AuthSettings(keys_file=path))
    assert access.keys.find(new) is None
    take()
    assert (access.keys.find(old), access.keys.find(new) is None) == (None, False)
