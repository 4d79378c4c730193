"""What the clients saw: runs by how they ended, chunks, and everything that should not have been."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

# Ends that a client of ours asked for, or that a killed worker explains.
EXPLAINED = frozenset({"/problems/worker-lost", "/problems/no-workers-available", "/problems/queue-timeout", "/problems/pool-saturated"})
# Of a run whose client left before it heard of it: with a shared log it may not have begun by then, and never does.
UNHEARD = "left unheard"


@dataclass
class Account:
    """`kinds`: by what a client did. `faults`: losses and surprises, in words; there may be none."""

    kinds: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)

    def ended(self, kind: str, status: str, problem: str = "") -> None:
        """Count a run as its client saw it end; `left` for one whose client went away."""
        self.kinds[kind] += 1
        self.ends[status] += 1
        if status not in ("ok", "left", UNHEARD, "cancelled") and problem not in EXPLAINED:
            self.faults.append(f"{kind}: ended as {status} {problem}")

    def check(self, kind: str, numbers: list[int], values: list[int], total: int | None, after: int = 0) -> None:
        """Count chunks, whose numbers and values have to go on from `after` without a hole, up to `total` where it ended well."""
        self.chunks += len(values)
        wanted = list(range(after + 1, after + 1 + len(values)))
        if not numbers == values == wanted:
            self.faults.append(f"{kind}: chunks {values[:3]}…{values[-3:]} ({len(values)}) after {after}")
        elif total is not None and after + len(values) != total:
            self.faults.append(f"{kind}: {after + len(values)} chunks of {total}, and a good end")
