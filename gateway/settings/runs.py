"""`[sessions]`, `[runlog]` and `[limits]`: what is kept of runs, and what a caller may take."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings.section import ByteCount, Count, Seconds, Section


class SessionSettings(Section):
    """`[sessions]`."""

    ttl_s: Seconds = 3600.0
    limit: Count = 10_000


class RunLogSettings(Section):
    """`[runlog]`: what is kept of runs, so that readers may come back to them."""

    # Where: in this process, or in a Redis or Valkey server that many gateways share (extra `redis`): `redis://`, `rediss://`,
    # `valkey://` or `valkeys://`, then `[user:password@]host[:port][/database]`.
    url: Annotated[str, Field(pattern=r"^(memory://$|(redis|valkey)s?://.)")] = "memory://"
    # How the keys in that server begin: one for each group of gateways.
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = "gateway:"
    # A gateway that shows no sign of life for so long is taken for dead soon after, and its runs are ended.
    lease_ttl_s: Annotated[float, Field(ge=1, le=300)] = 5.0
    # What waits for that server while it can't be reached; over it the oldest chunks of the fullest run become a gap.
    queue_limit_bytes: ByteCount = 64 * 1024 * 1024
    # The chunks of one run, in bytes (with what Python needs besides) and in number; and of all runs together. A plain run is one
    # that ends with its last subscriber (`_on_disconnect=cancel`) and has no idempotency key: hardly anybody comes back to it.
    run_limit_bytes: ByteCount = 4 * 1024 * 1024
    plain_run_limit_bytes: ByteCount = 160 * 1024
    run_limit_chunks: Count = 100_000
    limit_bytes: ByteCount = 256 * 1024 * 1024
    # How long an ended run is kept, and how many are.
    ttl_s: Seconds = 300.0
    kept_runs_limit: Count = 10_000


class CallerLimitSettings(Section):
    """What one caller may take; 0 for no limit, what isn't said is as for everybody.

    `streams`: runs that are queued or running at once. The other two: within any minute.
    """

    streams: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    starts_per_minute: Annotated[int, Field(ge=0, le=100_000)] | None = None
    bytes_per_minute: Annotated[int, Field(ge=0)] | None = None


class LimitSettings(CallerLimitSettings):
    """`[limits]`: what every caller may take, and in `[limits.callers.NAME]` one whose id is that. By default there is no limit."""

    callers: dict[str, CallerLimitSettings] = Field(default_factory=dict)
    # Whether anonymous callers on this machine are counted, too: all together. A proxy here speaks for everybody.
    count_loopback: bool = False
