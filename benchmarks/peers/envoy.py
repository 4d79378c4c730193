"""Envoy's configuration: the gRPC-JSON transcoder in front of the upstream, streams as SSE, nothing else.

The descriptor set is made of the generated modules' own descriptors, and the methods are mapped by their gRPC
paths, so the transcoder needs no annotated copy of the proto. Limits that a case would meet are raised.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from benchmarks.plan import TOOL, Plan
from gateway.rpc import snakepit_bridge_pb2

SERVICE = "snakepit.bridge.BridgeService"
PATH = f"/{SERVICE}/ExecuteStreamingTool"
READY_PATH = "/healthz"
# The gateway's own window for a stream. Envoy's default of 16 MiB is more than its transcoder lets a response buffer.
WINDOW_BYTES = 1 << 20
# Of what has arrived and isn't transcoded yet; past it the transcoder cuts the stream.
RESPONSE_LIMIT_BYTES = 16 << 20
_TYPES = "type.googleapis.com/envoy.extensions"


def write(folder: Path, port: int, upstream_port: int) -> Path:
    """Write the descriptor set and the configuration; return the latter's path."""
    descriptors = write_descriptors(folder)
    config = folder / "envoy.json"
    config.write_text(json.dumps(_configuration(port, upstream_port, descriptors), indent=1))
    return config


def write_descriptors(folder: Path) -> Path:
    """Write the descriptor set of the service; return its path."""
    descriptors = folder / "bridge.pb"
    files = FileDescriptorSet()
    for module in (any_pb2, timestamp_pb2, snakepit_bridge_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    descriptors.write_bytes(files.SerializeToString())
    return descriptors


def message(plan: Plan) -> dict[str, Any]:
    """Return the request message for a stream. A proper Any would be packed, so the plan is in the metadata, a plain map of strings."""
    texts = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in plan.arguments().items()}
    return {"toolName": TOOL, "metadata": texts}


def _configuration(port: int, upstream_port: int, descriptors: Path) -> dict[str, Any]:
    transcoder = {
        "@type": f"{_TYPES}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": [SERVICE],
        "auto_mapping": True,
        "max_response_body_size": RESPONSE_LIMIT_BYTES,
        "print_options": {"stream_newline_delimited": True, "stream_sse_style_delimited": True},
    }
    route = {"cluster": "upstream", "timeout": "0s", "idle_timeout": "0s"}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "stream_idle_timeout": "0s",
        "generate_request_id": False,
        "http_filters": [
            {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "bench",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"path": READY_PATH}, "direct_response": {"status": 200}},
                        {"match": {"prefix": "/"}, "route": route},
                    ],
                }
            ]
        },
    }
    http2 = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"initial_stream_window_size": WINDOW_BYTES}},
    }
    limits = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
        },
    }
    listener = {
        "name": "http",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
