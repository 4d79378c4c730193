"""The Python client of a gateway, on httpx: `Client` for threads, `AsyncClient` for an event loop. It loads no web server.

The way down: client.py and aio.py (the two shells, which do the I/O) carry out conversations (steps.py): reading.py (one reader of a
run, over all its connections) and exchanges.py (everything else). openings.py says how a reading begins, resume.py when it comes back,
requests.py what is sent, eventstream.py and values.py take apart what comes, errors.py is what is raised.
"""

from __future__ import annotations

from gateway.client.aio import AsyncClient, AsyncRun, AsyncStream
from gateway.client.client import Client, Run, Stream
from gateway.client.errors import ChunksLost, ClientError, GatewayProblem, NotReachable, StreamLost
from gateway.client.progress import track
from gateway.client.reading import End, Gap, Start, Status
from gateway.client.resume import NEVER, Resume
from gateway.client.stream import Chunk, StopStream

__all__ = [
    "NEVER",
    "AsyncClient",
    "AsyncRun",
    "AsyncStream",
    "Chunk",
    "ChunksLost",
    "Client",
    "ClientError",
    "End",
    "Gap",
    "GatewayProblem",
    "NotReachable",
    "Resume",
    "Run",
    "Start",
    "Status",
    "StopStream",
    "Stream",
    "StreamLost",
    "track",
]
