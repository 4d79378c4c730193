"""What is left of a soak: the account beside the gateway's own counters, what it holds, and how its memory went."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from soak.account import UNHEARD, Account
from tests.e2e.harness import Served
from tests.faults.leaks import MEBIBYTE, Holdings

# The least that tells growth from the allocator's moods, on runs of minutes.
SLOPE_LIMIT_MIB_MINUTE = 2.0
_SAMPLE = re.compile(r"^(gateway_\w+)(?:\{([^}]*)\})? ([0-9.e+-]+)$", re.MULTILINE)
Scrape = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Sample:
    """What the gateway held at a moment."""

    at_s: float
    holdings: Holdings

    @classmethod
    def of(cls, gateway: Served) -> Sample:
        return cls(time.monotonic(), Holdings.of(gateway))

    def more_than(self, before: Sample) -> dict[str, tuple[int, int]]:
        """Return what there is more of than before, memory aside: that has a slope."""
        return self.holdings.exceeds(before.holdings, 1 << 62)


def scrape(gateway: Served) -> Scrape:
    """Return the gateway's counters: (name, labels) -> value."""
    found = _SAMPLE.findall(gateway.client.get("/metrics").text)
    return {(name, labels): float(value) for name, labels, value in found if name.endswith("_total")}


def slope_mib_minute(samples: Sequence[Sample]) -> float:
    """Return the line through the resident memory by least squares, in MiB a minute."""
    if len(samples) < 2:
        return 0.0
    times = [sample.at_s / 60 for sample in samples]
    sizes = [sample.holdings.memory_bytes / MEBIBYTE for sample in samples]
    middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((at - middle) ** 2 for at in times)
    return sum((at - middle) * (size - mean) for at, size in zip(times, sizes, strict=True)) / spread


@dataclass(frozen=True)
class Verdict:
    """`rows`: name, what was, whether it is as it has to be (None: there is nothing to be judged)."""

    rows: list[tuple[str, str, bool | None]]
    faults: list[str]

    @property
    def good(self) -> bool:
        return not self.faults and all(fine is not False for _, _, fine in self.rows)

    def show(self) -> None:
        table = Table("", "value", "", box=None)
        for name, value, fine in self.rows:
            table.add_row(name, value, "" if fine is None else "ok" if fine else "[red]not ok")
        console = Console(soft_wrap=True, highlight=False)
        console.print(table)
        for fault in self.faults[:20]:
            console.print(f"  {fault}", markup=False)


def judge(account: Account, before: Sample, after: Sample, samples: Sequence[Sample], first: Scrape, last: Scrape) -> Verdict:
    """Return the verdict; `samples` are those after the warm-up, `first` and `last` the counters around the load."""

    def grown(name: str, label: str = "") -> int:
        return int(sum(value - first.get(key, 0.0) for key, value in last.items() if key[0] == name and label in key[1]))

    runs = sum(account.ends.values())
    started, ended = grown("gateway_runs_started_total"), grown("gateway_runs_ended_total")
    refused = grown("gateway_runs_refused_total")
    unheard = account.ends[UNHEARD]
    cancelled = grown("gateway_runs_ended_total", 'outcome="cancelled"')
    wanted = account.ends["left"] + unheard + account.ends["cancelled"]
    left = after.more_than(before)
    slope = slope_mib_minute(samples)
    high = max((sample.holdings.memory_bytes for sample in samples), default=0) / MEBIBYTE
    rows: list[tuple[str, str, bool | None]] = [
        ("runs, as clients saw them", f"{runs:,}", runs > 0),
        *((f"  {kind}", f"{count:,}", None) for kind, count in sorted(account.kinds.items())),
        *((f"  ended: {status}", f"{count:,}", None) for status, count in sorted(account.ends.items())),
        ("chunks", f"{account.chunks:,}", account.chunks > 0),
        ("workers killed; restarts counted", f"{account.kills}; {grown('gateway_pool_worker_restarts_total')}", None),
        ("losses and surprises", str(len(account.faults)), not account.faults),
        ("started and refused, counted by the gateway", f"{started:,} + {refused:,}", runs - unheard <= started + refused <= runs),
        ("ended, counted by the gateway", f"{ended:,}", ended == started),
        # A run that its client left may have ended by itself, or with its worker, a moment before.
        ("cancelled, counted; asked for", f"{cancelled:,}; {wanted:,}", cancelled <= wanted),
        (
            "memory: MiB before, highest, at the end",
            f"{before.holdings.memory_bytes / MEBIBYTE:.0f}, {high:.0f}, {after.holdings.memory_bytes / MEBIBYTE:.0f}",
            None,
        ),
        ("memory: MiB a minute", f"{slope:+.2f}", slope < SLOPE_LIMIT_MIB_MINUTE),
        *(
            (f"{name}: before, at rest", f"{asdict(before.holdings)[name]}, {value}", name not in left)
            for name, value in asdict(after.holdings).items()
            if name != "memory_bytes"
        ),
    ]
    return Verdict(rows, account.faults)
