"""Findings as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gateway.doctor.finding import Finding, Grade

_STYLES = {Grade.OK: "green", Grade.NOTE: "cyan", Grade.WARNING: "yellow", Grade.PROBLEM: "bold red"}


def as_table(url: str, findings: Sequence[Finding]) -> Table:
    """Return a row for each finding, with its advice below what was measured."""
    table = Table("", "check", "found", box=None, title=Text(f"The path to {url}", "table.title"), title_justify="left")
    for finding in findings:
        found = Text(finding.measured)
        if finding.advice:
            found.append(f"\n→ {finding.advice}", "dim")
        table.add_row(Text(finding.grade.value, _STYLES[finding.grade]), Text(finding.check), found)
    return table


def as_json(url: str, findings: Sequence[Finding]) -> str:
    """Return all findings as one JSON document; `ok` is False where there is a problem."""
    entries = [
        {
            "check": finding.check,
            "grade": finding.grade.value,
            "measured": finding.measured,
            "advice": finding.advice or None,
            **({"numbers": dict(finding.numbers)} if finding.numbers else {}),
        }
        for finding in findings
    ]
    return json.dumps({"url": url, "ok": all(finding.grade is not Grade.PROBLEM for finding in findings), "findings": entries})
