"""TeX in pages and docstrings as MathML, which browsers draw by themselves: no script, no font, no request."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.blockprocessors import BlockProcessor
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor

__all__ = ["Mathematics"]


class Mathematics(Extension):
    """``:math:`…``` and ``.. math::``, as docstrings have them, and ``$…$``, as code hosts do."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - the protocol's name
        """Called by Markdown. Roles come before code (190), dollars after it, so that code keeps its own."""
        md.inlinePatterns.register(_Inline(r":math:`([^`]+)`", md), "math_role", 195)
        md.inlinePatterns.register(_Inline(r"(?<![\\$\w])\$(?=\S)([^$]+?)(?<=\S)\$(?![\w$])", md), "math_dollars", 185)
        md.parser.blockprocessors.register(_Block(md.parser), "math_block", 175)


class _Inline(InlineProcessor):
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Any, int, int]:  # noqa: ARG002, N802
        return self.md.htmlStash.store(convert(_known(m[1]))), m.start(0), m.end(0)


class _Block(BlockProcessor):
    BEGIN = ".. math::"

    def test(self, parent: Element, block: str) -> bool:  # noqa: ARG002
        return block.lstrip().startswith(self.BEGIN)

    def run(self, parent: Element, blocks: list[str]) -> None:
        formula = " ".join(blocks.pop(0).strip().removeprefix(self.BEGIN).split())
        drawn = Element("p", {"class": "formula"})
        drawn.text = self.parser.md.htmlStash.store(convert(_known(formula), display="block"))
        parent.append(drawn)


def _known(formula: str) -> str:
    r"""In words that the converter knows; a sum at ``\tfrac`` is small by itself in a line."""
    for word, other in (("\\tfrac", "\\frac"), ("\\bigl", "\\left"), ("\\bigr", "\\right")):
        formula = formula.replace(word, other)
    return " ".join(formula.split())
