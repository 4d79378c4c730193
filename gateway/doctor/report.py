"""Findings as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from gateway.doctor.finding import Finding, Grade

_STYLES = {Grade.OK: "green", Grade.NOTE: "cyan", Grade.WARNING: "yellow", Grade.PROBLEM: "bold red"}


def as_table(url: str, findings: Sequence[Finding]) -> Table:
    """Return a row for each finding, with its advice below what was measured."""
    table = Table("", "check", "found", box=None, title=f"The path to {escape(url)}", title_justify="left")
    for finding in findings:
        advice = f"\n→ {escape(finding.advice)}" if finding.advice else ""
        style = _STYLES[finding.grade]
        table.add_row(f"[{style}]{finding.grade.value}[/]", finding.check, f"{escape(finding.measured)}[dim]{advice}[/]")
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
