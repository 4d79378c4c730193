"""What writes one run's events in one streamed format: the base of SseEncoder and NdjsonEncoder.

Used by endpoints/, which never asks which of them it has. A base class and no Protocol: compiled, `encode` is called
through a table instead of being looked up by name.
"""

from __future__ import annotations

from gateway.events import Event


class Encoder:
    """`name` is the format's for the operator, `heartbeat` what is sent in silence."""

    def __init__(self, name: str, media_type: str, heartbeat: bytes) -> None:
        self.name = name
        self.media_type = media_type
        self.heartbeat = heartbeat

    def encode(self, event: Event) -> bytes:
        """Return one event, or one batch of chunk events, as it goes on the wire."""
        raise NotImplementedError

    def farewell(self) -> bytes:
        """Return what a reader is told whose stream is cut without an end."""
        raise NotImplementedError
