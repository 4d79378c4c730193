"""What a check has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Grade(StrEnum):
    """OK: as it should be. NOTE: worth knowing. WARNING: works, and will hurt somebody. PROBLEM: streams don't work as they should."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`measured` is for people, `numbers` the same for programs; `advice` says what to change, empty where nothing is to be."""

    check: str
    grade: Grade
    measured: str
    advice: str = ""
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict)


class NoGateway(Exception):
    """Nobody answers at the URL, or it is no gateway; the text says which."""
