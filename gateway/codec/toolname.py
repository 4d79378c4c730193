"""The rule for a tool's name in Snakepit's registry: what RegisterTools takes, and so what host tools and pools of kind bridge may use."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RULE = "1 to 64 of the characters A-Z a-z 0-9 _ . -, the first a letter or digit"


def is_tool_name(name: str) -> bool:
    """Return whether a tool may have this name there."""
    return _NAME.fullmatch(name) is not None
