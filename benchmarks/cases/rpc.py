"""`one` and `paced` with the gateway as a transcoder: the upstream as any gRPC service, its messages whole, as proto3 JSON.

Beside Envoy's, which does the same: the same request, the same members in each event, `data` as base64.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import stamp
from benchmarks.peers import envoy
from benchmarks.plan import Plan
from benchmarks.targets import Gateway, Served, Stand, Target, post


@dataclass(frozen=True, slots=True)
class Transcoder(Gateway):
    """The gateway with the upstream as a service, whose methods a descriptor set says."""

    # `start`, the empty final chunk, which is a message as any other, and `end`.
    extra_events: int = 3
    stamps: stamp.Reader = stamp.encoded

    def request(self, plan: Plan) -> bytes:
        return post(f"/v1/rpc{envoy.PATH}", envoy.message(plan), self.accept)

    @contextlib.contextmanager
    def serving(self, stand: Stand) -> Iterator[Served]:
        descriptors = json.dumps(str(envoy.write_descriptors(stand.folder)))
        service = f'name = "bench"\naddress = "127.0.0.1:{stand.upstream_port}"\ndescriptor_set = {descriptors}\nconcurrency = 10000'
        with self.serving_upstream(stand, f"[[services]]\n{service}") as served:
            yield served


def transcoding(target: Target) -> Target:
    """Return a target as it plays these cases."""
    return Transcoder(target.name, target.transport, target.packages) if isinstance(target, Gateway) else target
