"""The fenced blocks of README.md and docs/: where each stands, its language, and why it isn't run where it says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.harness import ROOT

_FENCE = re.compile(r"( *)```(\S*)\s*$")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->$")
_FILE = re.compile(r"# ([a-z_]+\.py)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """One block. `language` is empty for output and the like; `excuse` is None where the block is to be run."""

    path: Path
    line: int
    language: str
    text: str
    excuse: str | None

    @property
    def name(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that an adapter's first line says it is."""
        named = _FILE.match(self.text)
        return named[1] if named is not None and "BaseAdapter" in self.text else None


def pages() -> list[Path]:
    """All pages that readers of the project see."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(path: Path) -> Iterator[Block]:
    """Yield a page's blocks.

    Raises:
        AssertionError: a block has no end.
    """
    lines = path.read_text().splitlines()
    number, before = 0, ""
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            before = lines[number].strip() or before
            number += 1
            continue
        indent, language = fence.groups()
        excuse = _NOT_RUN.match(before)
        begin = number + 1
        number = begin
        while number < len(lines) and lines[number] != f"{indent}```":
            number += 1
        assert number < len(lines), f"{path}:{begin}: the block has no end"
        text = "".join(f"{line.removeprefix(indent)}\n" for line in lines[begin:number])
        yield Block(path, begin, language, text, None if excuse is None else excuse[1])
        before = ""
        number += 1


def all_blocks() -> list[Block]:
    """Return the blocks of all pages."""
    return [block for path in pages() for block in blocks_of(path)]
