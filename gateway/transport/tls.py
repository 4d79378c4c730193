"""Which certificates a channel trusts and shows.

The settings hold paths; each transport reads them when a channel is made, so a wrong path fails at start and
not at the first call. lane.py takes an `ssl.SSLContext`, grpcio.py the C core's credentials.
Standard: RFC 9113 §9.2 (TLS 1.2 or newer, ALPN "h2").
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS towards a worker. All files are PEM.

    `ca_file` None trusts the system's authorities. `certificate_file` (with its chain) and `key_file` are shown
    to a worker that asks for a client certificate. `server_name` is what the worker's certificate must name and
    what SNI says; None takes the host of the address.

    Raises:
        ValueError: only one of `certificate_file` and `key_file` is given.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file belong together: give both or neither")

    def ssl_context(self) -> ssl.SSLContext:
        """Return a client context that offers only HTTP/2.

        Raises:
            OSError: a file can't be read.
            ssl.SSLError: a file isn't what it should be.
        """
        files = [path for path in (self.ca_file, self.certificate_file, self.key_file) if path is not None]
        for path in files:
            # OpenSSL says that something is not there, and not what.
            path.open("rb").close()
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file, _no_password)
        except ssl.SSLError as exc:
            names = ", ".join(map(str, files))
            raise ssl.SSLError(f"{names}: not a certificate (and its key) in PEM: {exc.reason or exc}") from exc
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        return context


def _no_password() -> str:
    """Refuse an encrypted key; by default OpenSSL asks at the terminal, and waits."""
    raise ssl.SSLError("the key is encrypted; give one without a password")
