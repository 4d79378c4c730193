"""The bounds and times of a shared log; every gateway on one log should have the same ones.

Values only. A gateway that dies is noticed after at most `lease_ttl_s` + `confirm_s` + two `sweep_interval_s`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SharedLogOptions:
    """The options of a SharedLog.

    `prefix` begins every key, so that several installations can share one server. `operation_timeout_s` bounds every
    question to the server and one round of writes. The back-off between two connects is random in a range that doubles from
    `backoff_min_s` to `backoff_max_s`.

    A gateway renews its lease every `lease_interval_s`, and it lapses `lease_ttl_s` after the last time. Another
    gateway calls it dead when it has seen it lapsed for `confirm_s` without a break: a server that stood still, or
    came back from a snapshot, lets every lease lapse at once, and all need a moment to renew theirs.

    `queue_limit_bytes` bounds what waits to be written over all runs while the log is unreachable or slow. One round of
    writes takes at most about `flush_bytes`, and the next one begins at least `linger_s` later; batches that wait become
    one entry of up to `entry_bytes`. In the log a run keeps at most `run_limit_bytes` and `run_limit_entries` (the oldest
    entries go), until `ttl_s` after its end; an open run's keys live `open_ttl_s` after the last time that its owner
    renewed them.

    `read_entries` bounds the entries of one answer to the reader, over all runs it follows; `block_s` is how long a
    read waits. `check_interval_s`: how often followed runs are looked for, two misses are an expiry.
    `inbox_limit` bounds the commands that wait for one gateway. `requests_limit` bounds the questions that wait here.
    """

    prefix: str = "gateway:"
    operation_timeout_s: float = 2.0
    backoff_min_s: float = 0.05
    backoff_max_s: float = 1.0
    lease_ttl_s: float = 5.0
    lease_interval_s: float = 1.0
    sweep_interval_s: float = 1.0
    confirm_s: float = 2.0
    queue_limit_bytes: int = 64 * 1024 * 1024
    linger_s: float = 0.005
    flush_bytes: int = 1024 * 1024
    entry_bytes: int = 64 * 1024
    run_limit_bytes: int = 4 * 1024 * 1024
    run_limit_entries: int = 20_000
    ttl_s: float = 600.0
    open_ttl_s: float = 86_400.0
    read_entries: int = 256
    block_s: float = 1.0
    check_interval_s: float = 2.0
    inbox_limit: int = 10_000
    requests_limit: int = 10_000
