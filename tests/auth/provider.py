"""An identity provider: its keys, a real HTTP server that publishes them, and the tokens that it signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

ISSUER = "https://id.example.com/"
AUDIENCE = "gateway"


class Provider:
    """`url` is where the keys are. `publish` changes which there are; `down`: every request is answered 503."""

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.down = False
        self._keys = {"k1": self._new_key("k1")}
        self._published = ["k1"]
        self.document: bytes | None = None

    def publish(self, *kids: str) -> None:
        for kid in kids:
            self._keys.setdefault(kid, self._new_key(kid))
        self._published = list(kids)

    def key_set(self) -> bytes:
        return json.dumps({"keys": [self._keys[kid].as_dict(private=False) for kid in self._published]}).encode()

    def token(self, subject: str = "ada", scope: Any = "tools:*", kid: str | None = "k1", key: ECKey | None = None, **claims: Any) -> str:
        """A good token, but for what `claims` change; one that is None is left out."""
        now = int(time.time())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "scope": scope, "iat": now, "exp": now + 600, **claims}
        header = {"alg": "ES256"} | ({} if kid is None else {"kid": kid})
        return jwt.encode(header, {name: value for name, value in said.items() if value is not None}, key or self._keys[kid or "k1"])

    @staticmethod
    def _new_key(kid: str) -> ECKey:
        return ECKey.generate_key("P-256", {"kid": kid, "use": "sig", "alg": "ES256"})


@contextmanager
def provided() -> Iterator[Provider]:
    """A provider whose server is there for the time of a block."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.requests += 1
            body = provider.key_set() if provider.document is None else provider.document
            self.send_response(503 if provider.down else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
