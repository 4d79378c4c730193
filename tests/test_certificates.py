"""What is wrong with a certificate's files is said at the start, by the setting's name, and a reload takes all or nothing."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.app import Gateway
from gateway.certificates import Certificates, CertificatesNotUsable, subject
from gateway.settings import ServerSettings, Settings, SettingsError, load
from tests.authority import Authority, Signed


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Signed:
    return authority.sign("localhost", name="server")


def shown_by(certificates: Certificates, authority: Authority) -> Any:
    """The serial number of the certificate that a client sees; no socket is needed for that."""
    to_client, to_server, client_in, server_in = (ssl.MemoryBIO() for _ in range(4))
    client = authority.client_context().wrap_bio(client_in, to_server, server_hostname="localhost")
    server = certificates.context.wrap_bio(server_in, to_client, server_side=True)
    for _ in range(6):
        for end, incoming, outgoing in ((client, server_in, to_server), (server, client_in, to_client)):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            incoming.write(outgoing.read())
    assert client.version() in ("TLSv1.2", "TLSv1.3")
    return client.getpeercert()["serialNumber"]  # type: ignore[index]


def test_files_that_cannot_be_used_are_named(authority: Authority, server: Signed, tmp_path: Path) -> None:
    other = authority.sign("localhost", name="other")
    nonsense, absent = tmp_path / "nonsense.pem", tmp_path / "absent.pem"
    nonsense.write_text("nonsense")
    encrypted = tmp_path / "encrypted.key"
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    encrypted.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    for files, message in {
        (absent, server.key): rf"server\.tls_cert: {absent} can't be read: No such file",
        (server.cert, absent): rf"server\.tls_key: {absent} can't be read: No such file",
        (server.cert, other.key): rf"server\.tls_key: {other.key} is not the key of {server.cert}",
        (nonsense, server.key): rf"server\.tls_cert: {nonsense} and .* are not a certificate and its key",
        (server.cert, encrypted): rf"server\.tls_key: {encrypted} is encrypted",
        (server.cert, server.key, absent): rf"server\.tls_client_ca: {absent} can't be read",
        (server.cert, server.key, nonsense): rf"server\.tls_client_ca: {nonsense} has no certificates",
    }.items():
        with pytest.raises(CertificatesNotUsable, match=message):
            Certificates(*files)


def test_a_gateway_does_not_start_without_its_certificates(authority: Authority, server: Signed) -> None:
    for prefix in ("tls", "grpc_tls"):
        files = {f"{prefix}_cert": server.cert, f"{prefix}_key": authority.file}
        with pytest.raises(SettingsError, match=rf"server\.{prefix}_cert"):
            Gateway(Settings(server=ServerSettings(**files)))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"tls_cert": "a"}, "tls_cert and tls_key belong together"),
        ({"grpc_tls_key": "a"}, "grpc_tls_cert and grpc_tls_key belong together"),
        ({"tls_client_ca": "a"}, "tls_client_ca: clients show a certificate only over TLS"),
        ({"grpc_tls": False, "grpc_tls_cert": "a", "grpc_tls_key": "b"}, "grpc_tls is false"),
    ],
)
def test_settings_that_are_half_are_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError, match=line):
        load(overrides={"server": given})


@pytest.mark.parametrize(
    ("given", "doors"),
    [
        ({}, (False, False)),
        ({"tls": True}, (True, True)),
        ({"tls": True, "grpc_tls": False}, (True, False)),
        ({"grpc": True}, (False, True)),
        ({"tls": True, "grpc": True}, (True, True)),
    ],
)
def test_each_front_door_has_what_was_said(server: Signed, given: dict[str, bool], doors: tuple[bool, bool]) -> None:
    files: dict[str, Any] = {"grpc_tls": given.get("grpc_tls", True)}
    if "tls" in given:
        files |= {"tls_cert": server.cert, "tls_key": server.key}
    if "grpc" in given:
        files |= {"grpc_tls_cert": server.cert, "grpc_tls_key": server.key}
    gateway = Gateway(Settings(server=ServerSettings(**files)))
    assert (gateway.certificates is not None, gateway.grpc_certificates is not None) == doors
    assert (gateway.certificates is gateway.grpc_certificates) == (given in ({}, {"tls": True}))


def test_a_reload_shows_the_new_certificate(authority: Authority, server: Signed) -> None:
    gateway = Gateway(Settings(server=ServerSettings(tls_cert=server.cert, tls_key=server.key)))
    assert gateway.certificates is not None
    first = shown_by(gateway.certificates, authority)
    authority.sign("localhost", name="server")
    assert shown_by(gateway.certificates, authority) == first
    gateway.reload_certificates()
    assert shown_by(gateway.certificates, authority) != first


def test_a_reload_that_fails_changes_nothing(authority: Authority, server: Signed) -> None:
    gateway = Gateway(Settings(server=ServerSettings(tls_cert=server.cert, tls_key=server.key)))
    assert gateway.certificates is not None
    first = shown_by(gateway.certificates, authority)
    key = server.key.read_bytes()
    authority.sign("localhost", name="server")
    # The new certificate is there, its key not yet.
    server.key.write_bytes(key)
    with pytest.raises(SettingsError, match="is not the key of"):
        gateway.reload_certificates()
    assert shown_by(gateway.certificates, authority) == first


def test_old_tls_is_not_spoken(server: Signed) -> None:
    context = Certificates(server.cert, server.key).context.current
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({}, ""),
        ({"subject": ((("countryName", "AT"),), (("organizationName", "A, B"),), (("commonName", "ann"),))}, "CN=ann,O=A\\, B,C=AT"),
        ({"subject": ((("commonName", "a"), ("userId", "b")),)}, "CN=a+UID=b"),
        ({"subject": ((("commonName", " #a+b "),),)}, "CN=\\ #a\\+b\\ "),
        ({"subject": ((("commonName", "#a"), ("emailAddress", "a@b")),)}, "CN=\\#a+emailAddress=a@b"),
    ],
)
def test_a_subject_is_written_as_rfc_4514_says(certificate: dict[str, Any], name: str) -> None:
    assert subject(certificate) == name
