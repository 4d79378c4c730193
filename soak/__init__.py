"""Hours in minutes: mixed load on a gateway of its own, with workers that are killed, and an account of it at the end.

    python -m soak --minutes 10 [--log valkey]        or: make soak MINUTES=10

Readers lose nothing, or they are told; nothing stays behind; what the gateway counted is what its clients saw. Built on the
harness of tests/e2e. Not a benchmark: it looks for what only time shows.

Memory grows for some four minutes and then stays: what is kept of runs reaches its limits, the allocators have found their
sizes. A soak of less than about seven minutes says more of those than of a leak.
"""
