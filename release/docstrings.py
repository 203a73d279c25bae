"""Docstrings as mkdocstrings reads them: it knows ``Examples:``, and takes ``Example:`` for prose."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

__all__ = ["Examples"]


class Examples(Extension):
    """Called by griffe for each object that it has read."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Its examples become code."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
