"""No link of the built site leads nowhere, and no page fetches anything: ``python release/check_site.py site``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["complaints"]

FETCHED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src"}


@dataclass
class _Page(HTMLParser):
    """What a page links to, fetches, and may be linked to at."""

    links: set[str] = field(default_factory=set)
    fetched: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in FETCHED and FETCHED[tag] in given:
            self.fetched.add(given[FETCHED[tag]])
        if tag == "link" and not {"canonical", "prev", "next"} & set(given.get("rel", "").split()):
            self.fetched.add(given.get("href", ""))


def complaints(folder: Path) -> list[str]:
    """Links within the site whose file or anchor is not there, and files that would come from elsewhere.

    Args:
        folder: The built site.

    Raises:
        FileNotFoundError: There are no pages in it.
    """
    pages = {path.resolve(): _read(path) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        raise FileNotFoundError(f"{folder}: expected a built site; `make docs` builds it")
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder.resolve())
        if name.name == "404.html":  # whose links begin at the root of wherever the site will be
            continue
        for link in sorted(page.links | page.fetched):
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") or parts.netloc:
                if link in page.fetched:
                    found.append(f"{name} fetches {link}")
            elif not parts.scheme:
                found += [
                    f"{name}: {link} {fault}" for fault in _fault(path, parts.path, unquote(parts.fragment), pages)
                ]
    return found


def _fault(path: Path, target: str, anchor: str, pages: dict[Path, _Page]) -> list[str]:
    there = (path.parent / unquote(target)).resolve() if target else path
    there = there / "index.html" if there.is_dir() else there
    if not there.exists():
        return ["leads nowhere"]
    if anchor and there in pages and anchor not in pages[there].anchors:
        return ["has no such anchor"]
    return []


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


if __name__ == "__main__":
    site = Path(sys.argv[1])
    wrong = complaints(site)
    print("\n".join(wrong) or f"{len(list(site.rglob('*.html')))} pages, no link leads nowhere, nothing is fetched")
    sys.exit(bool(wrong))
