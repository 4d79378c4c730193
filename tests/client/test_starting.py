from __future__ import annotations

import subprocess
import sys

import pytest

import gateway


@pytest.mark.parametrize("code", ["import gateway.client", "from gateway import Client, AsyncClient"])
def test_the_client_starts_without_the_web_server_and_without_grpc(code: str) -> None:
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert loaded & {"fastapi", "starlette", "uvicorn", "grpc", "pydantic", "websockets", "sse_starlette"} == set()
    assert "httpx" in loaded


def test_the_clients_are_names_of_the_package() -> None:
    from gateway.client import AsyncClient, Client

    assert (gateway.Client, gateway.AsyncClient) == (Client, AsyncClient)
    assert {"Client", "AsyncClient"} <= set(gateway.__all__)
