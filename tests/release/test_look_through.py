"""What is missing in a distribution is named before anybody gets it."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from release.loading import load

look_through = load("look_through")
METADATA = "Metadata-Version: 2.4\nName: rwalk\nVersion: 0.1.0\n{}\n{}"


@pytest.fixture
def built(tmp_path):
    """Distributions of a tree of four files, with what is to be changed in them."""

    def build(text="[a](https://example.org)", headers="", without=(), more=()):
        tree, folder = tmp_path / "tree", tmp_path / "dist"
        files = ["src/rwalk/__init__.py", "src/rwalk/py.typed", "tests/test_it.py", "docs/page.md", *more]
        for name in files:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text("")
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / "rwalk-0.1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("rwalk-0.1.0.dist-info/METADATA", METADATA.format(headers, text))
            for name in files:
                if name.startswith("src/") and name not in without:
                    wheel.writestr(name.removeprefix("src/"), "")
        with tarfile.open(folder / "rwalk-0.1.0.tar.gz", "w:gz") as sdist:
            for name in files:
                if name not in without:
                    sdist.addfile(tarfile.TarInfo(f"rwalk-0.1.0/{name}"), io.BytesIO())
        return folder, tree

    return build


def test_complete_ones_pass(built):
    assert look_through.complaints(*built()) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"without": ["src/rwalk/py.typed"]}, ["the wheel lacks rwalk/py.typed", "the sdist lacks src/rwalk/py.typed"]),
        ({"without": ["docs/page.md"]}, ["the sdist lacks docs/page.md"]),
        ({"text": "[a](docs/page.md)"}, ["a link of the long description works nowhere: ](docs/page.md)"]),
        ({"more": ["src/other/__init__.py"]}, ["the wheel holds other/__init__.py"]),
    ],
)
def test_what_is_wrong_is_named(built, change, complaint):
    assert look_through.complaints(*built(**change)) == complaint


def test_a_large_wheel_is_named(built, monkeypatch):
    folder, tree = built()
    monkeypatch.setattr(look_through, "LARGEST", (size := next(Path(folder).glob("*.whl")).stat().st_size))
    assert look_through.complaints(folder, tree) == [f"the wheel has {size} bytes, {size} are too many"]


def test_a_release_has_its_versions_tag_and_an_address(built):
    folder, tree = built()
    assert look_through.complaints(folder, tree, "v0.2.0") == [
        "the tag is v0.2.0, the version 0.1.0",
        "a release needs the repository's address: set RWALK_REPOSITORY, or repository in pyproject.toml",
    ]
    folder, tree = built(headers="Project-URL: Repository, https://example.org\n")
    assert look_through.complaints(folder, tree, "v0.1.0") == []
