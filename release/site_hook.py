"""What the site shows beside ``docs/``: the README, programs, notebooks, pictures of results, and mathematics.

mkdocs calls these functions (``hooks`` in ``mkdocs.yml``). A link of a page may lead anywhere in the repository, so
that it works where code is hosted. On the site it leads to the page made of that file; to the repository's address, if
it has one (``RWALK_REPOSITORY``, or ``repository`` in ``pyproject.toml``); or else it is plain text.
"""

from __future__ import annotations

import base64
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # mkdocs loads this file by its path
from mathematics import Mathematics

__all__ = ["on_config", "on_files", "on_page_markdown", "shown_at"]

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
CODE = re.compile(r"^([ \t]*```).*?^\1", re.MULTILINE | re.DOTALL)
PAGES = {"README.md": "index.md", **{f"{n}.md": f"{n.lower()}.md" for n in ("CHANGELOG", "CONTRIBUTING", "SECURITY")}}


def shown_at(path: str) -> str | None:
    """Where the site shows a file of the repository, as a path below ``docs/``; None if it does not."""
    folder, name = posixpath.split(path)
    if path in PAGES:
        return PAGES[path]
    if folder == "docs" or folder.startswith("docs/"):
        return path.removeprefix("docs/")
    if folder in ("examples", "notebooks") and name.endswith((".py", ".ipynb")):
        return f"{folder}/{posixpath.splitext(name)[0]}.md"
    return path if folder == "reproductions" and name.endswith(".svg") else None


def on_config(config: Any) -> Any:
    """Name the repository, understand mathematics, make anchors as code hosts do."""
    from pymdownx.slugs import slugify

    config.repo_url = _repository() or None
    config.site_url = os.environ.get("RWALK_SITE") or None
    config.markdown_extensions.append(Mathematics())
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures that lie outside of ``docs/``."""
    from mkdocs.structure.files import File

    for path in _outside():
        target = shown_at(path.relative_to(ROOT).as_posix())
        if path.suffix == ".ipynb":
            for name, content in _notebook(path, target):
                files.append(File.generated(config, name, content=content))
        elif path.suffix == ".py":
            code = path.read_text(encoding="utf-8")
            page = (
                f"---\nsearch: {{exclude: true}}\n---\n# {path.relative_to(ROOT).as_posix()}\n\n```python\n{code}```\n"
            )
            files.append(File.generated(config, target, content=page))
        else:
            files.append(File.generated(config, target, abs_src_path=str(path)))
    for file in files.documentation_pages():
        if file.src_uri.startswith("examples/"):  # no entry of the menu each
            file.inclusion = type(file.inclusion).NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where the site, or else the repository, shows their files."""
    here = {target: source for source, target in PAGES.items()}.get(page.file.src_uri)
    if here is None:
        generated = page.file.src_uri.startswith(("examples/", "notebooks/"))
        here = page.file.src_uri if generated else f"docs/{page.file.src_uri}"
    folder, at = posixpath.dirname(here), posixpath.dirname(page.file.src_uri)

    def replaced(found: re.Match[str]) -> str:
        picture, label, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / path).exists():
            return found[0]  # of a notebook's pictures, or broken: mkdocs tells
        shown = shown_at(path)
        if shown is None and not _repository():
            return label
        if shown is None:
            link = f"{_repository()}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}"
        else:
            link = posixpath.relpath(shown, at or ".")
        return f"{picture}[{label}]({link}{anchor or ''})"

    def outside_code(text: str) -> Iterator[str]:
        end = 0
        for block in CODE.finditer(text):
            yield LINK.sub(replaced, text[end : block.start()])
            yield block[0]
            end = block.end()
        yield LINK.sub(replaced, text[end:])

    return "".join(outside_code(markdown))


def _outside() -> Iterator[Path]:
    yield from (ROOT / name for name in PAGES)
    for pattern in ("examples/*.py", "notebooks/*.ipynb", "reproductions/*.svg"):
        yield from sorted(ROOT.glob(pattern))


def _notebook(path: Path, target: str) -> Iterator[tuple[str, str | bytes]]:
    """The page of a notebook, outputs and all, and its pictures."""
    from nbconvert import MarkdownExporter

    stem = posixpath.splitext(target)[0]
    text, resources = MarkdownExporter().from_filename(str(path))
    for name, content in resources["outputs"].items():
        yield f"{stem}/{name}", content if isinstance(content, bytes) else base64.b64decode(content)
        text = text.replace(f"({name})", f"({posixpath.basename(stem)}/{name})")
    yield target, text


def _repository() -> str:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    written = re.search(r'^repository = "(.*?)"', text, re.MULTILINE)
    return (os.environ.get("RWALK_REPOSITORY") or (written[1] if written else "")).rstrip("/")
