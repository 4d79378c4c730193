"""Adapters for the fake worker, in the manner of Snakepit's base adapter."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.any_pb2 import Any as ProtobufAny
from google.protobuf.wrappers_pb2 import StringValue

from gateway.rpc import snakepit_bridge_pb2 as pb
from tests.snakepit.fake_worker import journal


def tool(*, streaming: bool = False) -> Callable[[Any], Any]:
    def mark(function: Any) -> Any:
        function.is_tool, function.streams = True, streaming
        return function

    return mark


class Chunk:
    """A chunk that says more than its data."""

    def __init__(self, data: Any, is_final: bool = False, metadata: Any = None) -> None:
        self.data = data
        self.is_final = is_final
        self.metadata = metadata


class Base:
    """An adapter whose tools are its decorated methods; one that has no `execute_tool` can't run them."""

    session: Any = None

    def set_session_context(self, session: Any) -> None:
        self.session = session

    def register_with_session(self, session_id: str, host: Any) -> list[str]:
        found = [(name, method) for name, method in inspect.getmembers(self, callable) if getattr(method, "is_tool", False)]
        tools = [registration(name, method) for name, method in found]
        if hasattr(self, "execute_tool"):
            tools.append(registration("execute_tool", self.execute_tool))
        host.RegisterTools(pb.RegisterToolsRequest(session_id=session_id, tools=tools, worker_id=f"python-{id(self)}"))
        return [name for name, _ in found]


def registration(name: str, method: Any) -> Any:
    parameters = []
    for parameter in inspect.signature(method).parameters.values():
        annotation = parameter.annotation
        kind = getattr(annotation, "__name__", annotation if isinstance(annotation, str) and annotation.isidentifier() else "any")
        required = parameter.default is inspect.Parameter.empty
        default = "" if required else json.dumps({"default": parameter.default})
        kind = "any" if annotation is inspect.Parameter.empty else kind.lower()
        parameters.append(pb.ParameterSpec(name=parameter.name, type=kind, required=required, validation_json=default))
    return pb.ToolRegistration(
        name=name, description=method.__doc__ or "", parameters=parameters, supports_streaming=getattr(method, "streams", False)
    )


class Pickled:
    """A result that the worker pickles."""

    def __init__(self, data: bytes) -> None:
        self.pickled = data


class Silent(Base):
    """Has only decorated methods, as the guides show it."""

    @tool(streaming=True)
    def count(self, n: int = 3) -> Iterator[Any]:
        yield from range(n)


class Unregistered:
    """Registers nothing."""

    def set_session_context(self, session: Any) -> None:
        pass

    async def execute_tool(self, tool_name: str, arguments: Any, context: Any) -> Any:
        async def numbers() -> AsyncIterator[Any]:
            for number in range(int(arguments.get("n", 3))):
                yield {"i": number}

        return numbers()


class Misnamed(Base):
    """Registers a name that no registry takes."""

    def register_with_session(self, session_id: str, host: Any) -> list[str]:
        host.RegisterTools(pb.RegisterToolsRequest(session_id=session_id, tools=[pb.ToolRegistration(name="no/slash")]))
        return []


class Broken(Base):
    """Can't be initialised."""

    def initialize(self) -> None:
        raise RuntimeError("the weights are missing")

    def execute_tool(self, tool_name: str, arguments: Any, context: Any) -> Any:
        return None


class Tools(Base):
    """A tool for each thing that the real worker was seen to do."""

    def __init__(self) -> None:
        journal("adapter")

    def execute_tool(self, tool_name: str, arguments: Any, context: Any) -> Any:
        return getattr(self, tool_name)(**arguments)

    def cleanup(self) -> None:
        journal("cleanup")

    @tool(streaming=True)
    def count(self, n: int = 3, pause_s: float = 0.0) -> Iterator[Any]:
        """Count."""
        for number in range(n):
            yield {"i": number}
            if pause_s:
                time.sleep(pause_s)

    @tool(streaming=True)
    def nothing(self) -> Iterator[Any]:
        yield from ()

    @tool(streaming=True)
    def shapes(self) -> Iterator[Any]:
        yield {"a": 1}
        yield "plain str é"
        yield b"\x00\x01\xff"
        yield None
        yield [1, 2]
        yield 7
        yield float("nan")
        yield {"x": float("nan"), "y": float("inf")}
        yield "[broken"
        yield True
        yield Chunk("with metadata", metadata={"k": 1, "ok": True})
        yield Chunk({"last": "yes"}, is_final=True, metadata={"last": "yes"})
        yield "after the final"
        yield Chunk({"final": 2}, is_final=True, metadata={"second": "yes"})

    @tool(streaming=True)
    def memory(self) -> Iterator[Any]:
        import array

        yield array.array("d", [0.5, 1.5]).tobytes()

    @tool(streaming=True)
    def iterable(self, kind: str) -> Any:
        return {"dict": {"a": 1, "b": 2}, "text": "hé", "list": [1, "x"], "number": 5, "none": None}[kind]

    @tool(streaming=True)
    def fail(self, kind: str, after: int = 0, size: int = 0) -> Iterator[Any]:
        for number in range(after):
            yield {"i": number}
        message = "boom" * (size // 4 or 1)
        raise {
            "value": ValueError,
            "key": KeyError,
            "permission": PermissionError,
            "timeout": TimeoutError,
            "missing": NotImplementedError,
        }[kind](message)

    @tool(streaming=True)
    def unserialisable(self, after: int = 0) -> Iterator[Any]:
        yield from range(after)
        yield {"when": {1, 2}}

    @tool(streaming=True)
    async def unserialisable_async(self) -> AsyncIterator[Any]:
        yield 1
        yield {"when": {1, 2}}

    @tool(streaming=True)
    def large(self, size: int) -> Iterator[Any]:
        yield "x" * size

    @tool(streaming=True)
    def gated(self, gate: str) -> Iterator[Any]:
        """Yield once, then when the file is there."""
        try:
            yield "started"
            while not Path(gate).exists():
                time.sleep(0.01)
                yield "waiting" if Path(f"{gate}.chatty").exists() else None
            yield "done"
        finally:
            journal("finally")

    @tool(streaming=True)
    def held(self, gate: str) -> Iterator[Any]:
        """Yield once, then nothing until the file is there."""
        yield "started"
        while not Path(gate).exists():
            time.sleep(0.01)
        yield "done"

    @tool(streaming=True)
    async def held_async(self, gate: str) -> AsyncIterator[Any]:
        yield "started"
        while not os.path.exists(gate):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)
        yield "done"

    @tool(streaming=True)
    async def ticking_async(self, pause_s: float = 0.05) -> AsyncIterator[Any]:
        try:
            for number in range(100_000):
                yield number
                await asyncio.sleep(pause_s)
        finally:
            journal("async finally")

    @tool(streaming=True)
    def late(self, silent_s: float) -> Iterator[Any]:
        """Say nothing for a while."""
        try:
            time.sleep(silent_s)
            yield "at last"
        finally:
            journal("late finally")

    @tool()
    def sleep(self, s: float) -> Any:
        time.sleep(s)
        journal("slept")
        return s

    @tool(streaming=True)
    def flood(self, size: int = 20_000, n: int = 100_000, pause_s: float = 0.0) -> Iterator[Any]:
        try:
            for _ in range(n):
                yield "x" * size
                if pause_s:
                    time.sleep(pause_s)
        finally:
            journal("flood over")

    @tool(streaming=True)
    def die(self) -> Iterator[Any]:
        yield "last words"
        time.sleep(0.1)
        os._exit(3)

    @tool()
    def add(self, a: int, b: int = 2, *, note: str = None, **kwargs: Any) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return a + b

    @tool()
    def pid(self) -> Any:
        return {"pid": os.getpid(), "session": self.session.session_id, "correlation": self.session.correlation_id}

    @tool()
    def pickled(self) -> Any:
        return Pickled(b"cos\nsystem\n(S'touch pwned'\ntR.")

    @tool()
    def refuse(self, kind: str) -> Any:
        raise {"value": ValueError, "key": KeyError}[kind]("no")

    @tool()
    def accept(self, blob: Any = None) -> Any:
        return {"type": type(blob).__name__, "metadata": self.session.request_metadata}

    @tool()
    def ask_host(self, name: str, packed: bool = False) -> Any:
        value = StringValue(value="v").SerializeToString() if packed else b'"v"'
        parameters = {"key": ProtobufAny(type_url="type.googleapis.com/google.protobuf.StringValue", value=value)}
        session_id = self.session.session_id
        known = self.session.host.GetExposedElixirTools(pb.GetExposedElixirToolsRequest(session_id=session_id))
        answer = self.session.host.ExecuteElixirTool(
            pb.ExecuteElixirToolRequest(session_id=session_id, tool_name=name, parameters=parameters)
        )
        said = answer.error_message if not answer.success else json.loads(answer.result.value)
        return {"known": [found.name for found in known.tools], "answer": said}
