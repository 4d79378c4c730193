from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.configured import configured_pools
from gateway.services.options import ServiceOptions
from gateway.settings import ServiceSettings, Settings, SettingsError, load


def mistake(tmp_path: Path, text: str) -> str:
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        configured_pools(load(path))
    return str(raised.value)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_service_of_the_file_is_a_pool_behind_the_others(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(
        """
        [[pools]]
        addresses = ["127.0.0.1:1"]
        [[services]]
        address = "dns:///books.internal:50051"
        headers_in = ["X-Tenant"]
        concurrency = 7
        """
    )
    options = configured_pools(load(path))
    assert [(pool.name, pool.kind) for pool in options] == [("default", "addresses"), ("books.internal-50051", "rpc")]
    service = options[1]
    assert isinstance(service, ServiceOptions)
    assert (service.addresses, service.concurrency, service.headers_in) == (("dns:///books.internal:50051",), 7, {"x-tenant"})


def test_with_a_service_the_demo_tools_are_not_served() -> None:
    assert [pool.kind for pool in configured_pools(Settings())] == ["local"]
    assert [pool.kind for pool in configured_pools(Settings(services=(ServiceSettings(address="a:1"),)))] == ["rpc"]


@pytest.mark.parametrize(("address", "name"), [("a:1", "a-1"), ("unix:/run/x.sock", "unix-run-x.sock"), ("[::1]:5", "1-5")])
def test_a_service_is_named_by_its_address(address: str, name: str) -> None:
    assert ServiceSettings(address=address).pool == name


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('address = "a:1"\nheaders_ni = []', "did you mean headers_in"),
        ('address = "nowhere"', "nowhere"),
        ('address = "a:1"\nheaders_in = ["content-length"]', "can't be passed"),
        ('address = "a:1"\nheaders_out = ["x y"]', "no name of metadata"),
        ('address = "a:1"\nname = "a/b"', "name"),
        ('address = "a:1"\nconcurrency = 0', "concurrency"),
        ('address = "a:1"\ndescriptor_set = "missing.set"', "missing.set"),
        ('address = "a:1"\ndescriptor_set = "gateway.toml"', "descriptor"),
        ('address = "a:1"\ntls = { cert = "c" }', "tls.cert and tls.key belong together"),
        ('name = "a"', "address"),
        ('address = "a:1"\nname = "default"\n[[pools]]\naddresses = ["b:1"]', "two pools or services are named default"),
    ],
)
def test_what_is_wrong_is_said_for_the_operator(tmp_path: Path, lines: str, said: str) -> None:
    assert said in mistake(tmp_path, f"[[services]]\n{lines}\n")


def test_a_service_that_is_not_in_the_descriptor_set_is_named(tmp_path: Path) -> None:
    from tests.services.compiled import descriptor_set

    (tmp_path / "library.set").write_bytes(descriptor_set())
    text = '[[services]]\nname = "books"\naddress = "a:1"\ndescriptor_set = "library.set"\nservices = ["test.library.v1.Libary"]\n'
    said = mistake(tmp_path, text)
    assert "service 'books'" in said
    assert "did you mean test.library.v1.Library" in said


def test_options_of_the_same_descriptors_are_the_same(tmp_path: Path) -> None:
    """So that a reload leaves a service alone that hasn't changed."""
    from tests.services.compiled import descriptor_set

    path: Any = tmp_path / "library.set"
    path.write_bytes(descriptor_set())
    settings = Settings(services=(ServiceSettings(address="a:1", descriptor_set=path),))
    before, again = configured_pools(settings), configured_pools(settings)
    assert before == again
    path.write_bytes(b"".join([descriptor_set(), b"\x0a\x0b\x0a\x07a.proto\x12\x00"]))
    assert configured_pools(settings) != before
