"""A name for each test's calls."""

from __future__ import annotations

import itertools

import pytest

_tags = itertools.count(1)


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    """A name for this test's session and its tool's calls."""
    return f"{next(_tags)}-{request.node.name[:60]}"
