"""Every Python example of Snakepit's streaming guide runs unchanged in a worker process, its imports included."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2

from gateway.rpc import snakepit_bridge_pb2 as bridge
from gateway.rpc import snakepit_bridge_pb2_grpc as bridge_grpc

ROOT = Path(__file__).parents[2]
EXAMPLES = dict(re.findall(r"## (.+?)\n\n```python\n(.+?)```", Path(__file__).with_name("examples.md").read_text(), re.DOTALL))


def as_module(code: str) -> str:
    """Return an example as a module: one without a class becomes a method of one, under the imports that the guide shows."""
    if "class " in code:
        return code
    imports = "".join(line for line in code.splitlines(keepends=True) if line.startswith("from "))
    method = "".join(line for line in code.splitlines(keepends=True) if not line.startswith("from "))
    head = "from snakepit_bridge.base_adapter import BaseAdapter, tool\nfrom snakepit_bridge.adapters.showcase.tool import StreamChunk\n"
    return f"{head}{imports}\nclass Example(BaseAdapter):\n{textwrap.indent(method, '    ')}"


async def run(code: str, folder: Path, tool: str, arguments: dict[str, Any]) -> list[tuple[Any, bool]]:
    """Run one tool of an example in a worker process of its own; return each chunk's value (None: no data) and final mark."""
    module, ready = folder / "example.py", folder / "ready"
    module.write_text(as_module(code))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.runtime",
        "--adapter",
        str(module),
        env={**os.environ, "PYTHONPATH": str(ROOT), "SNAKEPIT_READY_FILE": str(ready)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            while not ready.exists():
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ready.read_text()}") as channel:
            parameters = {name: any_pb2.Any(value=json.dumps(value).encode()) for name, value in arguments.items()}
            request = bridge.ExecuteToolRequest(session_id="seed", tool_name=tool, parameters=parameters)
            call = bridge_grpc.BridgeServiceStub(channel).ExecuteStreamingTool(request, timeout=20)
            return [(json.loads(chunk.data) if chunk.data else None, chunk.is_final) async for chunk in call]
    finally:
        process.terminate()
        await process.communicate()


def test_all_examples_of_the_guide_are_here() -> None:
    assert len(EXAMPLES) == 7


async def test_stream_progress(tmp_path: Path) -> None:
    assert await run(EXAMPLES["Enabling streaming"], tmp_path, "stream_progress", {"steps": 2}) == [
        ({"step": 1, "total": 2, "progress": 50.0}, False),
        ({"step": 2, "total": 2, "progress": 100.0}, False),
        (None, True),
    ]


async def test_stream_numbers_with_its_default(tmp_path: Path) -> None:
    chunks = await run(EXAMPLES["Using generators"], tmp_path, "stream_numbers", {})
    assert chunks == [({"number": i, "is_last": i == 9}, False) for i in range(10)] + [(None, True)]


async def test_stream_items_marks_its_own_final(tmp_path: Path) -> None:
    chunks = await run(EXAMPLES["StreamChunk class"], tmp_path, "stream_items", {"count": 3})
    assert chunks == [({"index": i, "value": f"Item {i}"}, i == 3) for i in (1, 2, 3)]


async def test_train_model(tmp_path: Path) -> None:
    assert await run(EXAMPLES["Training progress"], tmp_path, "train_model", {"epochs": 2}) == [
        ({"type": "progress", "epoch": 1, "loss": 1.0, "accuracy": 0.5}, False),
        ({"type": "progress", "epoch": 2, "loss": 0.5, "accuracy": 0.55}, False),
        ({"type": "complete", "final_loss": 0.5, "final_accuracy": 0.55}, False),
        (None, True),
    ]


async def test_generate_dataset(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    chunks = await run(EXAMPLES["Chunked dataset"], tmp_path, "generate_dataset", {"rows": 25, "chunk_size": 10})
    assert [(value["rows"], value["total"], final) for value, final in chunks] == [(10, 10, False), (10, 20, False), (5, 25, True)]
    assert all(len(row) == 10 for value, _ in chunks for row in value["data"])


async def test_complete_example(tmp_path: Path) -> None:
    chunks = await run(EXAMPLES["Complete streaming example"], tmp_path, "train_with_progress", {"epochs": 2})
    assert chunks[:2] == [
        ({"epoch": 1, "loss": 0.8, "accuracy": 0.55}, False),
        ({"epoch": 2, "loss": 0.64, "accuracy": 0.6}, False),
    ]
    value, final = chunks[2]
    assert final
    assert value["status"] == "complete"
    assert value["model_id"].startswith("model_")
    assert len(chunks) == 3


async def test_my_streaming_tool(tmp_path: Path) -> None:
    chunks = await run(EXAMPLES["Enabling a tool for streaming"], tmp_path, "my_streaming_tool", {"param": "x"})
    assert chunks == [({"step": i, "result": "Processing x"}, False) for i in range(10)] + [(None, True)]
