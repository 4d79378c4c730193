"""A worker that behaves as Snakepit's does, its bugs included: a program with the same command line, environment and wire.

Written from what was observed of the real one, on our generated code; nothing of Snakepit's is in here. What a test wants to know of the
inside is a line in the file that FAKE_JOURNAL names. FAKE_SEND_LIMIT is the largest message, instead of 100 MiB.

    grpc_server.py             one process, a thread for each synchronous stream, heartbeats
    … --max-workers N          the threaded one: no heartbeats, tools registered for every call, N streams on a connection
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from gateway.rpc import snakepit_bridge_pb2 as pb
from gateway.rpc import snakepit_bridge_pb2_grpc as pb_grpc

QUEUE_LIMIT = 100
DRAIN_S = 2.0
TRUE = ("1", "true", "yes", "on")


def journal(what: str) -> None:
    if path := os.environ.get("FAKE_JOURNAL"):
        with open(path, "a") as file:
            file.write(f"{os.getpid()} {what}\n")


class SessionContext:
    """What an adapter is told of the call."""

    def __init__(self, host: Any, session_id: str, metadata: dict[str, str]) -> None:
        self.host = host
        self.session_id = session_id
        self.request_metadata = metadata
        self.correlation_id: str | None = None


class Worker(pb_grpc.BridgeServiceServicer):
    def __init__(self, arguments: argparse.Namespace, adapter: type, stop: asyncio.Event) -> None:
        self.adapter = adapter
        self.threaded = arguments.max_workers is not None
        self.stop = stop
        self.host = pb_grpc.BridgeServiceStub(grpc.insecure_channel(arguments.elixir_address))
        self.aio_host = pb_grpc.BridgeServiceStub(grpc.aio.insecure_channel(arguments.elixir_address))
        heartbeat = {"enabled": True, "interval_ms": 2000, "timeout_ms": 10_000, "max_missed_heartbeats": 3, "dependent": True}
        self.heartbeat = heartbeat | json.loads(os.environ.get("SNAKEPIT_HEARTBEAT_CONFIG", "{}"))
        self.beats: dict[str, asyncio.Task[None]] = {}
        self.registered: set[str] = set()
        self.noisy = os.environ.get("SNAKEPIT_OTEL_CONSOLE", "true") in TRUE

    # what is passed on to the host

    async def Ping(self, request: Any, context: Any) -> Any:
        journal("ping")
        return pb.PingResponse(message=f"Pong from Python: {request.message}")

    async def InitializeSession(self, request: Any, context: Any) -> Any:
        self.span("InitializeSession")
        answer = await self.aio_host.InitializeSession(request)
        self.begin_heartbeat(request.session_id)
        return answer

    async def CleanupSession(self, request: Any, context: Any) -> Any:
        self.span("CleanupSession")
        journal(f"cleanup-session {request.session_id}")
        try:
            return await self.aio_host.CleanupSession(request)
        finally:
            if task := self.beats.pop(request.session_id, None):
                task.cancel()

    async def GetSession(self, request: Any, context: Any) -> Any:
        return await self.aio_host.GetSession(request)

    async def Heartbeat(self, request: Any, context: Any) -> Any:
        return await self.aio_host.Heartbeat(request)

    async def StreamTelemetry(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no telemetry here")
        yield

    # tools

    async def ExecuteTool(self, request: Any, context: Any) -> Any:
        self.span("ExecuteTool")
        try:
            adapter, arguments, session = await self.prepare(request, context)
            if not hasattr(adapter, "execute_tool"):
                raise NotImplementedError("Adapter does not support execute_tool")
            result = await self.execute(adapter, request.tool_name, arguments, session)
            if inspect.isgenerator(result) or inspect.isasyncgen(result):
                result = {"error": "Streaming tool called on non-streaming endpoint."}
        except Exception as error:
            return pb.ExecuteToolResponse(success=False, error_message=self.payload_of(error, request))
        answer = pb.ExecuteToolResponse(success=True)
        if hasattr(result, "pickled"):
            answer.result.type_url = "type.googleapis.com/snakepit.tensor.binary"
            answer.binary_result = result.pickled
        else:
            kind = {bool: "boolean", dict: "map", str: "string", int: "float", float: "float", list: "list"}.get(type(result), "string")
            value = float(result) if kind == "float" else result if kind != "string" or isinstance(result, str) else str(result)
            answer.result.type_url = f"type.googleapis.com/snakepit.{kind}"
            answer.result.value = json.dumps(value).encode()
        return answer

    async def ExecuteStreamingTool(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.span("ExecuteStreamingTool")
        adapter: Any = None
        loop = asyncio.get_running_loop()
        cancelled = False
        producer: asyncio.Task[None] | None = None
        queue: asyncio.Queue[Any] = asyncio.Queue(QUEUE_LIMIT)
        end = object()
        number = 0
        has_final = False

        def chunk_of(item: Any) -> Any:
            nonlocal number, has_final
            metadata: Any = {}
            final = False
            if hasattr(item, "data"):
                final, metadata, item = bool(getattr(item, "is_final", False)), getattr(item, "metadata", {}), item.data
            data = encoded(item)
            number += 1
            has_final = has_final or final
            sent = {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
            return pb.ToolChunk(chunk_id=f"{request.tool_name}-{number}", data=data, is_final=final, metadata=sent)

        def drain_sync(iterator: Any) -> None:
            nonlocal cancelled
            try:
                for item in iterator:
                    if cancelled:
                        break
                    try:
                        chunk = chunk_of(item)
                    except (TypeError, ValueError):
                        # The bug: nobody is told, so the stream waits for ever.
                        cancelled = True
                        return
                    # The other one: when nobody takes from a full queue any more, the thread waits here for ever.
                    asyncio.run_coroutine_threadsafe(queue.put(chunk), loop).result()
            except Exception as error:
                asyncio.run_coroutine_threadsafe(queue.put(error), loop).result()
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()
                if not cancelled:
                    asyncio.run_coroutine_threadsafe(queue.put(end), loop).result()

        async def drain_async(iterator: Any) -> None:
            try:
                async for item in iterator:
                    await queue.put(chunk_of(item))
            except Exception as error:
                await queue.put(error)
            await queue.put(end)

        try:
            adapter, arguments, session = await self.prepare(request, context)
            if not hasattr(adapter, "execute_tool"):
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Adapter does not support tool execution")
            result = await self.execute(adapter, request.tool_name, arguments, session)
            if hasattr(result, "__aiter__"):
                producer = asyncio.create_task(drain_async(result))
            elif hasattr(result, "__iter__"):
                producer = asyncio.create_task(asyncio.to_thread(drain_sync, iter(result)))
            else:
                producer = asyncio.create_task(asyncio.to_thread(drain_sync, iter([result])))
            while (item := await queue.get()) is not end:
                if isinstance(item, Exception):
                    raise item
                yield item
            if not has_final:
                number += 1
                yield pb.ToolChunk(chunk_id=f"{request.tool_name}-{number}", is_final=True)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await context.abort(grpc.StatusCode.INTERNAL, self.payload_of(error, request))
        finally:
            cancelled = True
            journal(f"handler over, {queue.qsize()} queued")
            if producer is not None:
                producer.cancel()
            if hasattr(adapter, "cleanup"):
                adapter.cleanup()

    async def prepare(self, request: Any, context: Any) -> tuple[Any, dict[str, Any], SessionContext]:
        """What every call does first: session, adapter, registration, initialisation, arguments."""
        with contextlib.suppress(grpc.RpcError):
            self.host.InitializeSession(pb.InitializeSessionRequest(session_id=request.session_id))
        self.begin_heartbeat(request.session_id)
        session = SessionContext(self.host, request.session_id, dict(request.metadata))
        session.correlation_id = dict(context.invocation_metadata()).get("x-snakepit-correlation-id")
        adapter = self.adapter()
        adapter.set_session_context(session)
        if hasattr(adapter, "register_with_session") and (self.threaded or request.session_id not in self.registered):
            self.registered.add(request.session_id)
            adapter.register_with_session(request.session_id, self.host)
        if hasattr(adapter, "initialize"):
            if inspect.iscoroutinefunction(adapter.initialize):
                await adapter.initialize()
            elif self.threaded:
                adapter.initialize()
            else:
                await asyncio.to_thread(adapter.initialize)
        arguments = {name: decoded(value) for name, value in request.parameters.items()}
        for name, data in request.binary_parameters.items():
            if request.metadata.get(f"binary_format:{name}") == "pickle":
                journal(f"unpickled {name}")
            arguments[name] = data
        return adapter, arguments, session

    async def execute(self, adapter: Any, tool: str, arguments: dict[str, Any], session: SessionContext) -> Any:
        journal(f"execute {tool} {session.session_id} {json.dumps(session.request_metadata)}")
        given = {"tool_name": tool, "arguments": arguments, "context": session}
        if inspect.iscoroutinefunction(adapter.execute_tool):
            return await adapter.execute_tool(**given)
        return adapter.execute_tool(**given) if self.threaded else await asyncio.to_thread(adapter.execute_tool, **given)

    @staticmethod
    def payload_of(error: Exception, request: Any) -> str:
        lines = traceback.format_exception(error)
        context = {"tool_name": request.tool_name, "session_id": request.session_id}
        text = {"type": type(error).__name__, "message": str(error), "stacktrace": lines, "traceback": "".join(lines), "context": context}
        return json.dumps(text)

    # heartbeats

    def begin_heartbeat(self, session_id: str) -> None:
        if self.heartbeat["enabled"] and not self.threaded and session_id not in self.beats:
            journal(f"heartbeat {session_id}")
            self.beats[session_id] = asyncio.create_task(self.beat(session_id))

    async def beat(self, session_id: str) -> None:
        missed = 0
        while True:
            try:
                timeout = self.heartbeat["timeout_ms"] / 1000
                await self.aio_host.Heartbeat(pb.HeartbeatRequest(session_id=session_id), timeout=timeout)
                missed = 0
            except grpc.RpcError:
                missed += 1
            if missed >= self.heartbeat["max_missed_heartbeats"] and self.heartbeat["dependent"]:
                journal("host lost")
                os.kill(os.getpid(), signal.SIGTERM)
                return
            await asyncio.sleep(self.heartbeat["interval_ms"] / 1000)

    def span(self, method: str) -> None:
        if self.noisy:
            sys.stdout.write(json.dumps({"name": f"BridgeService/{method}", "attributes": {"filler": "x" * 900}}, indent=4) + "\n")
            sys.stdout.flush()


def encoded(item: Any) -> bytes:
    if item is None:
        return b""
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    return item.encode() if isinstance(item, str) else json.dumps(item).encode()


def decoded(value: Any) -> Any:
    """A parameter is raw JSON, whatever its type URL says."""

    def refuse(constant: str) -> None:
        raise json.JSONDecodeError("unexpected constant", constant, 0)

    return json.loads(value.value.decode(), parse_constant=refuse)


async def reach(address: str) -> bool:
    pause_s = 0.05
    async with grpc.aio.insecure_channel(address) as channel:
        for _ in range(60):
            try:
                await pb_grpc.BridgeServiceStub(channel).Ping(pb.PingRequest(message="connection_test"), timeout=1.0)
            except grpc.RpcError:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 2.0)
            else:
                return True
    return False


def say_ready(ready: Path, port: int) -> None:
    written = ready.with_name(f"{ready.name}.tmp")
    written.write_text(str(port))
    written.replace(ready)


async def serve(arguments: argparse.Namespace) -> int:
    if not await reach(arguments.elixir_address):
        return 1
    module, _, name = arguments.adapter.rpartition(".")
    try:
        adapter = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        sys.stderr.write(f"Failed to import adapter {arguments.adapter}: {error}\n")
        return 1
    limit = int(os.environ.get("FAKE_SEND_LIMIT", 100 * 1024 * 1024))
    options = [("grpc.max_receive_message_length", 100 * 1024 * 1024), ("grpc.max_send_message_length", limit), ("grpc.so_reuseport", 0)]
    if arguments.max_workers is not None:
        options.append(("grpc.max_concurrent_streams", arguments.max_workers))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = grpc.aio.server(options=options)
    worker = Worker(arguments, adapter, stop)
    pb_grpc.add_BridgeServiceServicer_to_server(worker, server)
    port = server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    await server.start()
    if ready := os.environ.get("SNAKEPIT_READY_FILE"):
        say_ready(Path(ready), port)
    await stop.wait()
    for task in worker.beats.values():
        task.cancel()
    # grpc prints a traceback for each call that a stop cuts, which the tests would take for a bug of the gateway's.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    await server.stop(DRAIN_S)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--elixir-address", default=os.environ.get("SNAKEPIT_GRPC_ADDRESS"))
    parser.add_argument("--snakepit-run-id", default="")
    parser.add_argument("--max-workers", type=int)
    # The threaded server knows no more.
    if not any(word.startswith("--max-workers") for word in sys.argv):
        parser.add_argument("--snakepit-instance-name", default="")
        parser.add_argument("--snakepit-instance-token", default="")
    arguments = parser.parse_args()
    if os.environ.get("SNAKEPIT_PROCESS_GROUP", "").lower() in TRUE:
        try:
            os.setsid()
        except OSError:
            journal("is a process group already")
    # asyncio.run waits for its threads at the end, as the real one does.
    return asyncio.run(serve(arguments))


if __name__ == "__main__":
    sys.exit(main())
