"""What a wheel and an sdist must hold before anybody gets them: ``python release/look_through.py dist [TAG]``."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

__all__ = ["complaints"]

LARGEST = 580_000  # bytes of the wheel
CODE = (".py", ".c", ".yaml", ".typed")
RELATIVE = re.compile(r"\]\((?!https?://|mailto:|#)[^)]*\)")
#: Folders whose files the tests read.
READ_BY_TESTS = ("tests", "benchmarks", "docs", "examples", "notebooks", "release", "reproductions", "src")


def complaints(folder: Path, root: Path, tag: str = "") -> list[str]:
    """What is wrong with the distributions in a folder.

    Args:
        folder: Holds one wheel and one sdist.
        root: The tree that they were built from.
        tag: Of the commit that is released; empty if it is no release.
    """
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        about = Parser().parsestr(next(archive.read(n).decode() for n in inside if n.endswith(".dist-info/METADATA")))
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    package = {str(path.relative_to(root / "src")) for path in _files(root / "src") if path.suffix in CODE}
    read = {str(path.relative_to(root)) for name in READ_BY_TESTS for path in _files(root / name)}
    found = [f"the wheel lacks {name}" for name in sorted(package - inside)]
    found += [f"the sdist lacks {name}" for name in sorted(read - packed)]
    found += [f"the wheel holds {name}" for name in sorted(inside) if not name.startswith("rwalk")]
    if wheel.stat().st_size >= LARGEST:
        found.append(f"the wheel has {wheel.stat().st_size} bytes, {LARGEST} are too many")
    return found + _about(about, tag)


def _about(metadata: Message, tag: str) -> list[str]:
    found = [f"a link of the long description works nowhere: {link}" for link in RELATIVE.findall(_text(metadata))]
    if tag and tag != f"v{metadata['Version']}":
        found.append(f"the tag is {tag}, the version {metadata['Version']}")
    if tag and not metadata.get_all("Project-URL"):
        found.append("a release needs the repository's address: set RWALK_REPOSITORY, or repository in pyproject.toml")
    return found


def _text(metadata: Message) -> str:
    return str(metadata.get_payload())


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


if __name__ == "__main__":
    wrong = complaints(Path(sys.argv[1]), Path(__file__).parents[1], *sys.argv[2:3])
    print("\n".join(wrong) or "wheel and sdist are complete")
    sys.exit(bool(wrong))
