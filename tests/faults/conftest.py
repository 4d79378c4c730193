"""The gateway that most faults happen to: a quiet pool for the bystanders, and others to be broken."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import serve, tag
from tests.e2e.harness import JOURNAL_ADAPTER, ROOT, Served, served
from tests.faults.bystanders import POOL

__all__ = ["gateway", "serve", "tag"]

ODD_ADAPTER = ROOT / "tests" / "faults" / "adapter.py"

# Deadlines that a test can wait for; ended runs are not what a fault left behind.
SETTINGS = f"""
[server]
retry_ms = 100
write_timeout_s = 2
meta_keys = ["note"]

[runlog]
ttl_s = 2

[[pools]]
name = "{POOL}"
adapter = "{JOURNAL_ADAPTER}"
size = 1
concurrency = 16

[[pools]]
name = "broken"
adapter = "{JOURNAL_ADAPTER}"
size = 2
concurrency = 200
health_interval_s = 0.5
health_timeout_s = 0.5
health_misses = 2
stop_timeout_s = 10
terminate_timeout_s = 1

[[pools]]
name = "odd"
adapter = "{ODD_ADAPTER}"
size = 1
concurrency = 16
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One gateway for all faults of a kind: what one leaves behind, the next would see."""
    with served(tmp_path_factory.mktemp("faults"), settings=SETTINGS) as gateway:
        yield gateway
