"""The upstream: pools of worker processes, which of them a request gets, and executing a tool on it.

runs/ asks a Pool for a Lease, and the lease executes the call. `catalog` says what tools there are. The way
down is pool -> dispatch (who gets which worker, no I/O) -> lease -> toolstream -> transport; beside it
local and address keep the workers themselves alive.
"""
