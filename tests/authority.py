"""An authority for tests of TLS, and the files that it signs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Signed:
    """A certificate with its key, as files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates into files of a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA(organization_name=name)
        self._folder = folder
        self._name = name
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def sign(self, *identities: str, name: str, common_name: str | None = None, expired: bool = False) -> Signed:
        """Sign a certificate; over files of the same name, if there are any."""
        until = datetime.now(UTC) - timedelta(days=1) if expired else None
        before = datetime.now(UTC) - timedelta(days=2) if expired else None
        issued = self._ca.issue_cert(*identities, common_name=common_name, not_before=before, not_after=until)
        signed = Signed(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        signed.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(signed.key)
        return signed

    def client_context(self, shown: Signed | None = None) -> ssl.SSLContext:
        """Return what a client trusts, and shows."""
        context = ssl.create_default_context(cafile=self.file)
        if shown is not None:
            context.load_cert_chain(shown.cert, shown.key)
        return context
