"""`gateway doctor`: measures what lies between a client and a gateway, and says what to change there.

    examine  the checks in their order: examination.py; of the path (path.py), of streams (streaming.py), of requests (requests.py)
    probe    reads the gateway's probe streams, each event with the time it came: probe.py
    finding  what a check has found: a grade, what was measured, advice
    advice   what to write into which proxy's configuration: advice.py
    report   a table for people, JSON for programs

Runs as a client, apart from the server; called by cli.py.
"""

from __future__ import annotations

from gateway.doctor.examination import examine
from gateway.doctor.finding import Finding, Grade, NoGateway
from gateway.doctor.report import as_json, as_table

__all__ = ["Finding", "Grade", "NoGateway", "as_json", "as_table", "examine"]
