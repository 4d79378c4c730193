"""What our front doors show of themselves over TLS, and whom they ask for a certificate.

Made by app.py from settings, one for HTTP and one for gRPC where that has files of its own; server.py listens with its
context, bridge/server.py with its credentials. Whatever is wrong with a file is said at the start, by the setting's
name. Invariant: `reload` takes over all files or none. Standards: RFC 9325 (TLS 1.2 or newer), RFC 7301 (ALPN), RFC 4514 (subjects).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    import grpc

_SHORT_NAMES: Mapping[str, str] = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


class CertificatesNotUsable(Exception):
    """A file can't be read, or isn't what it should be; the text begins with the setting's name."""


class FollowingContext(ssl.SSLContext):
    """A listener's context, whose connections are made by the context of the moment.

    A new certificate could be loaded into a context that listens, but no authority be taken from one.
    """

    current: ssl.SSLContext

    def __new__(cls, current: ssl.SSLContext) -> Self:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context.current = current
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Do what the base does, which is all that asyncio and uvloop ask of a context for each connection."""
        return self.current.wrap_bio(*args, **options)


class Certificates:
    """A certificate with its chain, its key, and the authorities of the clients that are let in. All files are PEM.

    `client_ca_file` None: clients are not asked for a certificate; else they need one. `prefix` is that of the settings' names.

    Raises:
        CertificatesNotUsable: see there.
    """

    def __init__(self, certificate_file: Path, key_file: Path, client_ca_file: Path | None = None, *, prefix: str = "server.tls") -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        self._prefix = prefix
        self.context = FollowingContext(self._loaded())
        self._read = self._contents()
        # Counts what was loaded: gRPC asks at each connection whether there is something new.
        self._generation = 0

    def reload(self) -> None:
        """Read the files again; connections from now on see what they say. Those that are open stay.

        Raises:
            CertificatesNotUsable: nothing has changed then.
        """
        loaded, read = self._loaded(), self._contents()
        self.context.current, self._read = loaded, read
        self._generation += 1

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return the same for a gRPC listener; it follows `reload`."""
        import grpc

        shown = self._generation

        def configuration() -> Any:
            certificate, key, authorities = self._read
            return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

        def fetch() -> Any:
            # From a thread of the C core.
            nonlocal shown
            if shown == self._generation:
                return None
            shown = self._generation
            return configuration()

        asks = self._client_ca_file is not None
        return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=asks)

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._contents()
        try:
            context.load_cert_chain(self._certificate_file, self._key_file, self._no_password)
        except ssl.SSLError as exc:
            if exc.reason == "KEY_VALUES_MISMATCH":
                raise CertificatesNotUsable(f"{self._prefix}_key: {self._key_file} is not the key of {self._certificate_file}") from exc
            files = f"{self._certificate_file} and {self._key_file}"
            raise CertificatesNotUsable(f"{self._prefix}_cert: {files} are not a certificate and its key in PEM ({exc.reason})") from exc
        if self._client_ca_file is not None:
            try:
                context.load_verify_locations(self._client_ca_file)
            except ssl.SSLError as exc:
                raise CertificatesNotUsable(
                    f"{self._prefix}_client_ca: {self._client_ca_file} has no certificates in PEM ({exc.reason})"
                ) from exc
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _contents(self) -> tuple[bytes, bytes, bytes | None]:
        """Return the certificate, the key and the authorities; None for the latter where clients aren't asked."""
        authorities = None if self._client_ca_file is None else self._content("client_ca", self._client_ca_file)
        return self._content("cert", self._certificate_file), self._content("key", self._key_file), authorities

    def _content(self, setting: str, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as exc:
            raise CertificatesNotUsable(f"{self._prefix}_{setting}: {path} can't be read: {exc.strerror}") from exc

    def _no_password(self) -> NoReturn:
        """Refuse a key that is encrypted; by default OpenSSL asks at the terminal, and waits."""
        raise CertificatesNotUsable(
            f"{self._prefix}_key: {self._key_file} is encrypted; give a key without a password, readable for us only"
        )


def subject(certificate: Mapping[str, Any]) -> str:
    """Return the subject of a peer's certificate, as `getpeercert` has it, in the words of RFC 4514: `CN=ann,O=Example`."""
    parts = [
        "+".join(f"{_SHORT_NAMES.get(name, name)}={_escaped(value)}" for name, value in part) for part in certificate.get("subject", ())
    ]
    return ",".join(reversed(parts))


def _escaped(value: str) -> str:
    """Return an attribute's value as RFC 4514 §2.4 writes it: what would end it is escaped."""
    text = "".join(f"\\{character}" if character in '\\",+;<>' else character for character in value).replace("\0", "\\00")
    if text.startswith(("#", " ")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(text) > 1 else text
