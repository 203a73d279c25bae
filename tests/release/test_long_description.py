"""What the build fills in: a long description whose links work wherever it is read, and the project's URLs."""

import re
from types import SimpleNamespace

import pytest

from release.loading import ROOT, load

ADDRESS = "https://example.org/them/rwalk"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)]*)\)")


hook = load("metadata_hook")


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_and_pictures_lead_to_the_versions_tag():
    text = "[a](docs/a.md#b) ![p](docs/p.svg) [out](https://else.org/x) [here](#more) `x[0]`"
    assert hook.long_description(text, ADDRESS, "1.2.3") == (
        f"[a]({ADDRESS}/blob/v1.2.3/docs/a.md#b) ![p]({ADDRESS}/raw/v1.2.3/docs/p.svg) "
        "[out](https://else.org/x) [here](#more) `x[0]`"
    )


def test_without_an_address_links_are_text():
    assert hook.long_description("[a](docs/a.md) [out](https://else.org)", "", "1") == "a [out](https://else.org)"


@pytest.mark.parametrize("address", ["", ADDRESS])
def test_no_link_of_the_readme_is_relative(readme, address):
    targets = LINK.findall(hook.long_description(readme, address, "1.2.3"))
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert bool(targets) == bool(address)


def test_every_link_of_the_readme_leads_to_a_file(readme):
    inside = [target for target in LINK.findall(readme) if not target.startswith(("https://", "#"))]
    assert inside
    assert not [target for target in inside if not (ROOT / target.partition("#")[0]).exists()]


@pytest.mark.parametrize("set_in", ["environment", "pyproject"])
def test_the_address_comes_from_one_place(set_in, monkeypatch):
    monkeypatch.delenv("RWALK_REPOSITORY", raising=False)
    if set_in == "environment":
        monkeypatch.setenv("RWALK_REPOSITORY", f"{ADDRESS}/")
    metadata = {"version": "1.2.3"}
    config = {"repository": ADDRESS if set_in == "pyproject" else "https://example.org/overridden"}
    hook.Hook.update(SimpleNamespace(root=str(ROOT), config=config), metadata)
    assert metadata["urls"]["Repository"] == ADDRESS
    assert f"({ADDRESS}/blob/v1.2.3/CHANGELOG.md)" in metadata["readme"]["text"]


def test_without_an_address_there_are_no_urls():
    assert hook.project_urls("") == {}


def test_the_citation_names_this_version():
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    written = re.search(r'__version__ = "(.*)"', (ROOT / "src/rwalk/__init__.py").read_text(encoding="utf-8"))
    assert cited[1] == written[1]
