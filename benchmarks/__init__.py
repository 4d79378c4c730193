"""Benchmarks of the gateway beside its peers, in one run: `python -m benchmarks`, or `make bench`.

An upstream that is not the bottleneck (upstream/), a load generator that only counts (load/), the gateway and
its peers as processes (targets.py, peers/), what is asked of them (cases/), and the table, JSON and plot
(report.py, plot.py, record.py). The target runs on one core, upstream and load generator on another; the figure
that counts is the target's CPU time for each event, and its ratio to the peers measured in the same run.
"""
