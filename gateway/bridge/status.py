"""Our codes as gRPC's statuses, for whoever ends a call of the front door: its service and the interceptor before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from gateway.errors import Code

STATUS: Final[Mapping[Code, grpc.StatusCode]] = {Code(status.value[0]): status for status in grpc.StatusCode}
