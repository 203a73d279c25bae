"""What the build fills in: the long description, in which every link works wherever it is read, and the project's URLs.

Both need the address of the repository: ``RWALK_REPOSITORY`` in the environment (the release workflow sets it), else
``repository`` in ``pyproject.toml``. Without one, links into the repository become plain text, and there are no URLs.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

__all__ = ["Hook", "long_description", "project_urls"]

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|mailto:|#)([^)\s]+)\)")


def long_description(text: str, repository: str, version: str) -> str:
    """A page of the repository as it can be read outside of it.

    Args:
        text: Markdown, with links relative to the repository's root.
        repository: Its address; empty if it has none.
        version: Links lead to this version's tag.
    """

    def replaced(found: re.Match[str]) -> str:
        picture, label, target = found.groups()
        if not repository:
            return label
        return f"{picture}[{label}]({repository}/{'raw' if picture else 'blob'}/v{version}/{target})"

    return LINK.sub(replaced, text)


def project_urls(repository: str) -> dict[str, str]:
    """What the project's page links to."""
    if not repository:
        return {}
    inside = {"Documentation": "blob/main/README.md#more", "Changelog": "blob/main/CHANGELOG.md", "Issues": "issues"}
    return {"Repository": repository, **{name: f"{repository}/{path}" for name, path in inside.items()}}


class Hook(MetadataHookInterface):
    """Called by hatchling."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in ``readme`` and ``urls``."""
        repository = (os.environ.get("RWALK_REPOSITORY") or self.config["repository"]).rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        described = long_description(text, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": described}
        metadata["urls"] = project_urls(repository)
