"""Methods of a gRPC service by the clients and the command line, which know them by their slash."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.client import AsyncClient
from gateway.client.errors import RpcFailed, RpcNotFound
from tests.cli.test_commands import cli
from tests.conftest import Running, Serve, until, within
from tests.services import library

LIBRARY = "test.library.v1.Library"


@pytest.fixture
async def front(serve: Serve, library_server: library.Server) -> AsyncIterator[Running]:
    async with serve(services=[{"name": "library", "address": library_server.address}], allowed_hosts=()) as running:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        yield running


async def test_the_python_client(front: Running, library_server: library.Server) -> None:
    async with AsyncClient(front.url) as client:
        assert (await client.call(f"{LIBRARY}/GetBook", {"name": "a"}))["title"] == "Emma"
        async with client.stream(f"{LIBRARY}/Count", {"to": 3}) as stream:
            assert [answer["number"] async for answer in stream] == [1, 2, 3]
        run = await client.start(f"{LIBRARY}/GetBook", {"name": "b"})
        assert (await run.result())["name"] == "b"
        assert (await client.tool(f"{LIBRARY}/GetBook"))["parameters"]["properties"]["name"] == {"type": "string"}
        with pytest.raises(RpcNotFound, match="GetBook"):
            await client.tool(f"{LIBRARY}/GetBok")
        with pytest.raises(RpcFailed) as raised:
            await client.call(f"{LIBRARY}/Fail", {"code": 3, "withDetails": True})
        assert (raised.value.code.name, len(raised.value.document["details"])) == ("INVALID_ARGUMENT", 5)
        async with client.stream(f"{LIBRARY}/Count", {"pause_ms": 5}) as endless:
            async for answer in endless:
                if answer["number"] == 2:
                    break
        await library_server.library.until(lambda: library_server.library.cancelled == ["Count"])


async def test_the_command_line(front: Running) -> None:
    streamed = await cli("stream", f"{LIBRARY}/Count", "to=2", "--url", front.url)
    assert (streamed.exit_code, streamed.stdout) == (0, '{"number":1}\n{"number":2}\n')
    assert "2 chunks" in streamed.stderr
    assert "None" not in streamed.stderr
    called = await cli("call", f"{LIBRARY}/GetBook", "name=a", 'view={"withCover": true}', "--url", front.url)
    assert (called.exit_code, json.loads(called.stdout)["cover"]) == (0, "iVBORw==")
    wrong = await cli("call", f"{LIBRARY}/GetBook", "nam=a", "--url", front.url)
    assert (wrong.exit_code, "nam" in wrong.stderr) == (1, True)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
async def test_the_javascript_client(front: Running) -> None:
    script = str(Path(__file__).with_name("rpc.mjs"))
    environment = {**os.environ, "GATEWAY_URL": f"{front.url}/"}
    process = await asyncio.create_subprocess_exec(
        "node", "--test", "--test-reporter=tap", script, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await within(process.communicate(), 30)
    assert process.returncode == 0, output.decode()
