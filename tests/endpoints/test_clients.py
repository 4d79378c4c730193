"""Whose address a request has: its peer's, unless the peer is a proxy that the settings name."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.endpoints.clients import TrustedProxies, client_address, client_certificate
from gateway.endpoints.exposure import Exposure


def scope(peer: str | None = "10.0.0.1", **fields: str) -> dict[str, Any]:
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    client = None if peer is None else (peer, 1234)
    return {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "http_version": "1.1",
        "path": "/v1/tools",
        "client": client,
        "headers": [(b"host", b"gateway"), *headers],
    }


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ([], "10.0.0.1", "203.0.113.7", "10.0.0.1"),
        (["10.0.0.0/8"], "192.0.2.1", "203.0.113.7", "192.0.2.1"),
        (["10.0.0.0/8"], "10.0.0.1", "203.0.113.7", "203.0.113.7"),
        (["10.0.0.1"], "::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
        # The last one that isn't a proxy; whoever it was may have made up what stands before.
        (["10.0.0.0/8"], "10.0.0.1", "1.1.1.1, 203.0.113.7, 10.0.0.9", "203.0.113.7"),
        (["10.0.0.0/8"], "10.0.0.1", "10.0.0.7, 10.0.0.9", "10.0.0.7"),
        (["10.0.0.0/8"], "10.0.0.1", "1.1.1.1, nonsense, 10.0.0.9", "10.0.0.9"),
        (["10.0.0.0/8"], "10.0.0.1", "", "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", "203.0.113.7:5555", "203.0.113.7"),
        (["10.0.0.0/8"], "10.0.0.1", "[2001:db8::1]:5555", "2001:db8::1"),
        (["::1"], "::1", "2001:db8::1", "2001:db8::1"),
    ],
)
def test_only_a_trusted_proxy_is_believed(trusted: list[str], peer: str, forwarded: str, address: str) -> None:
    request = scope(peer, x_forwarded_for=forwarded)
    Exposure(proxies=TrustedProxies(trusted)).check(request)
    assert client_address(request) == address


@pytest.mark.parametrize(("trusted", "scheme"), [([], "http"), (["10.0.0.1"], "https")])
def test_the_scheme_is_the_one_that_the_client_used(trusted: list[str], scheme: str) -> None:
    request = scope(x_forwarded_proto="https")
    Exposure(proxies=TrustedProxies(trusted)).check(request)
    assert request["scheme"] == scheme


def test_fields_that_are_there_twice_are_one_list() -> None:
    request = scope(x_forwarded_for="1.1.1.1")
    request["headers"].append((b"x-forwarded-for", b"203.0.113.7"))
    Exposure(proxies=TrustedProxies(["10.0.0.1"])).check(request)
    assert client_address(request) == "203.0.113.7"


def test_a_unix_socket_s_client_has_no_address() -> None:
    request = scope(None, x_forwarded_for="203.0.113.7")
    Exposure(proxies=TrustedProxies(["10.0.0.1"])).check(request)
    assert client_address(request) == ""


def test_a_certificate_s_name_is_that_of_the_tls_extension() -> None:
    assert client_certificate(scope()) is None
    assert client_certificate({"extensions": {"tls": {"client_cert_name": "CN=ann"}}}) == "CN=ann"


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        TrustedProxies(["nonsense"])
