from gateway.rpc import snakepit_bridge_pb2 as _snakepit_bridge_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WorkerDescription(_message.Message):
    __slots__ = ("worker_id", "concurrency", "tools", "batches", "adapter", "version")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    concurrency: int
    tools: _containers.RepeatedCompositeFieldContainer[ToolDescription]
    batches: bool
    adapter: str
    version: str
    def __init__(self, worker_id: _Optional[str] = ..., concurrency: _Optional[int] = ..., tools: _Optional[_Iterable[_Union[ToolDescription, _Mapping]]] = ..., batches: _Optional[bool] = ..., adapter: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class ToolDescription(_message.Message):
    __slots__ = ("name", "description", "supports_streaming", "parameters_schema", "required_variables")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_STREAMING_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_VARIABLES_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    supports_streaming: bool
    parameters_schema: str
    required_variables: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., supports_streaming: _Optional[bool] = ..., parameters_schema: _Optional[str] = ..., required_variables: _Optional[_Iterable[str]] = ...) -> None: ...

class ToolChunks(_message.Message):
    __slots__ = ("chunks", "payloads")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[_snakepit_bridge_pb2.ToolChunk]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, chunks: _Optional[_Iterable[_Union[_snakepit_bridge_pb2.ToolChunk, _Mapping]]] = ..., payloads: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AwaitStopRequest(_message.Message):
    __slots__ = ("run_id", "timeout_ms")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    timeout_ms: int
    def __init__(self, run_id: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class AwaitStopResponse(_message.Message):
    __slots__ = ("stopped",)
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    stopped: bool
    def __init__(self, stopped: _Optional[bool] = ...) -> None: ...
