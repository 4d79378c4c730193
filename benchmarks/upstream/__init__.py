"""The worker that is never the bottleneck: a small HTTP/2 server that sends frames prepared once.

`python -m benchmarks.upstream` is the process; connection.py its HTTP/2, execution.py one stream, answers.py its
unary calls, reports.py what the harness can read from it, handle.py the harness's side.
"""
