"""The Python blocks of a page, and what a comment before one says of it.

``<!-- not run: REASON -->``: it needs a peer, an account or a device. ``<!-- stand-in: REASON -->``: it runs with
something in place of a peer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>not run|stand-in): (?P<why>.*?) -->\n)?```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    code: str
    line: int
    mark: str = ""
    why: str = ""


def pages() -> list[str]:
    """All pages that people read, by their path in the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.name != "CHANGELOG.md")


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(found["code"], text.count("\n", 0, found.start("code")), found["mark"] or "", found["why"] or "")
        for found in FENCE.finditer(text)
    ]


def run(page: str, block: Block, names: dict) -> None:
    """Execute it where it stands, so that a traceback names the page's line."""
    exec(compile("\n" * block.line + block.code, str(ROOT / page), "exec"), names)
