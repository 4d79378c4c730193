"""What stands between a doctor and a gateway: nginx, configured well or badly, and a proxy that buffers."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import until

_TEMPLATE = """
{user}
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
worker_processes 1;
events {{ worker_connections 128; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream};
      {lines}
    }}
  }}
}}
"""

Proxied = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def nginx(tmp_path: Path) -> Proxied:
    """An nginx in front of a port, with these lines in its location; its URL."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")

    @asynccontextmanager
    async def proxied(upstream: int, *lines: str) -> AsyncIterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        # Else root's nginx becomes somebody who may not write here.
        user = "user root;" if os.getuid() == 0 else ""
        configuration = tmp_path / "nginx.conf"
        rendered = _TEMPLATE.format(user=user, directory=tmp_path, port=port, upstream=upstream, lines="\n      ".join(lines))
        configuration.write_text(rendered)
        process = await asyncio.create_subprocess_exec(
            program, "-c", str(configuration), "-p", str(tmp_path), stderr=asyncio.subprocess.PIPE
        )

        def listens() -> bool:
            if process.returncode is not None:
                raise AssertionError((tmp_path / "error.log").read_text())
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        try:
            await until(listens)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.communicate()

    return proxied


@asynccontextmanager
async def buffering_proxy(upstream: int) -> AsyncIterator[str]:
    """A proxy that passes a response on when it has all of it, one request a connection; its URL."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = [line for line in head.split("\r\n") if line and not line.lower().startswith(("connection:", "upgrade:"))]
        length = next((int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        answers, requests = await asyncio.open_connection("127.0.0.1", upstream)
        requests.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        answer, gone = asyncio.ensure_future(answers.read()), asyncio.ensure_future(reader.read(1))
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            writer.write(answer.result())
        gone.cancel()
        answer.cancel()
        requests.close()
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
