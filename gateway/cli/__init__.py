"""The command line: `gateway serve` runs the server, the other commands are its clients.

A file a command, or a few that belong together: serve.py, catalogue.py, streams.py, runs.py, doctor.py, keys.py, scaffold.py;
program.py puts them together. The client commands speak by `gateway.client`, so they load no web server.

Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 no server, 130 interrupted.
"""

from __future__ import annotations

from gateway.cli.program import app, main

__all__ = ["app", "main"]
