"""What one stream is to deliver: chosen by a case, carried by the request, obeyed by the upstream.

The gateway and the naive peer carry it as the tool's parameters (a map of Any with JSON text), Envoy's transcoder
as the request's metadata, since its JSON mapping would pack an Any properly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gateway.rpc.snakepit_bridge_pb2 import ExecuteToolRequest

TOOL = "bench"
ENDLESS = -1
# `{"t":`, 19 digits, `,"p":"` and `"}`.
SMALLEST_CHUNK_BYTES = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """One stream of `count` chunks (ENDLESS: until it is cancelled) of `size` bytes of JSON each.

    `interval_us` 0: as fast as flow control lets. `hold`: stay open and silent after the last chunk. `key` names the
    stream in the upstream's reports.
    """

    count: int
    size: int = 100
    interval_us: int = 0
    hold: bool = False
    key: str = ""

    def arguments(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return asdict(self)

    @classmethod
    def of_request(cls, request: ExecuteToolRequest) -> Plan:
        """Return the plan that a request carries.

        Raises:
            ValueError: a number isn't one, or chunks would be too small for their timestamp.
        """
        texts = {name: value.value.decode() for name, value in request.parameters.items()} or dict(request.metadata)
        plan = cls(
            count=int(texts["count"]),
            size=int(texts["size"]),
            interval_us=int(texts["interval_us"]),
            hold=texts["hold"] == "true",
            key=texts["key"].strip('"'),
        )
        if plan.size < SMALLEST_CHUNK_BYTES:
            raise ValueError(f"a chunk has at least {SMALLEST_CHUNK_BYTES} bytes")
        return plan
