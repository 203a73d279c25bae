"""The site: what it shows of the repository, where its links lead, and what is told of a broken one."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from release.loading import ROOT, load

check_site = load("check_site")
SAID_ELSEWHERE = {"rwalk.__version__", "rwalk.RWalkPlugin"}  # the second is rwalk.training's


@pytest.fixture
def hook(monkeypatch):
    """Without its mathematics, which need packages of the extra `docs`."""
    monkeypatch.setitem(sys.modules, "mathematics", SimpleNamespace(Mathematics=object))
    monkeypatch.delenv("RWALK_REPOSITORY", raising=False)
    return load("site_hook")


def rewritten(hook, text, at="method.md"):
    return hook.on_page_markdown(text, SimpleNamespace(file=SimpleNamespace(src_uri=at)))


@pytest.mark.parametrize(
    ("at", "link", "there"),
    [
        ("index.md", "[a](docs/method.md#memory)", "[a](method.md#memory)"),
        ("index.md", "![a](docs/images/keeping.svg)", "![a](images/keeping.svg)"),
        ("index.md", "[`a\nb`](examples/plain_pytorch.py)", "[`a\nb`](examples/plain_pytorch.md)"),
        ("method.md", "[a](../examples/plain_pytorch.py)", "[a](examples/plain_pytorch.md)"),
        ("method.md", "[a](../README.md)", "[a](index.md)"),
        ("method.md", "[a](performance.md)", "[a](performance.md)"),
        ("method.md", "[a](nowhere.md)", "[a](nowhere.md)"),  # which mkdocs refuses
        ("method.md", "[a](https://example.org/docs/method.md)", "[a](https://example.org/docs/method.md)"),
        ("integrations/peft.md", "[a](../../examples/lora_base.py)", "[a](../examples/lora_base.md)"),
        ("integrations/peft.md", "[a](../protect.md)", "[a](../protect.md)"),
        ("contributing.md", "[a](docs/method.md)", "[a](method.md)"),
        ("method.md", "```python\n[a](../examples/plain_pytorch.py)\n```", None),
        ("method.md", "[a](../src/rwalk/core/config.py)", "a"),  # nobody knows where the repository is
    ],
)
def test_links_lead_to_where_a_file_is_shown(hook, at, link, there):
    assert rewritten(hook, link, at) == (link if there is None else there)


def test_links_to_what_is_not_shown_lead_to_the_repository(hook, monkeypatch):
    monkeypatch.setenv("RWALK_REPOSITORY", "https://example.org/me/rwalk/")
    link = "[a](../src/rwalk/core/config.py) and [b](../tests)"
    address = "https://example.org/me/rwalk"
    assert (
        rewritten(hook, link) == f"[a]({address}/blob/main/src/rwalk/core/config.py) and [b]({address}/tree/main/tests)"
    )


def test_the_menu_names_every_page(hook):
    def paths(entry):
        if isinstance(entry, str):
            return {entry}
        return set().union(*map(paths, entry.values() if isinstance(entry, dict) else entry))

    named = paths(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    docs = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert docs | notebooks | set(hook.PAGES.values()) <= named


def test_every_public_name_is_in_the_reference():
    """Those of `__all__` of each package and door, alone or with their package."""
    import importlib

    text = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    for package in (
        "rwalk",
        *(f"rwalk.{name}" for name in ("replay", "metrics", "training", "streams", "models", "experiments")),
    ):
        names = {f"{package}.{name}" for name in importlib.import_module(package).__all__} - SAID_ELSEWHERE
        assert package in shown or names <= shown
    for door in ("accelerate", "avalanche", "hub", "lightning", "peft", "several", "transformers"):
        name = f"rwalk.integrations.{door}"
        all_of = re.search(
            r"^__all__ = \[(.*)\]", (ROOT / "src" / f"{name.replace('.', '/')}.py").read_text(), re.MULTILINE
        )
        assert name in shown or {f"{name}.{each}" for each in re.findall(r'"(\w+)"', all_of[1])} <= shown


@pytest.fixture
def site(tmp_path):
    """Pages by name, and a picture."""

    def build(**pages):
        for name, body in pages.items():
            target = tmp_path / f"{name.replace('__', '/')}.html"
            target.parent.mkdir(exist_ok=True)
            target.write_text(f"<html><body>{body}</body></html>")
        (tmp_path / "a b.svg").write_text("<svg/>")
        return tmp_path

    return build


def test_a_whole_site_passes(site):
    folder = site(
        index='<a href="in/side.html#here">a</a><img src="a%20b.svg"><a href="https://example.org/x">b</a>',
        in__side='<h1 id="here">a</h1><a href="../index.html">b</a><a href="#here">c</a><a href="..">d</a>',
    )
    assert check_site.complaints(folder) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<a href="gone.html">a</a>', "index.html: gone.html leads nowhere"),
        ('<img src="gone.svg">', "index.html: gone.svg leads nowhere"),
        ('<a href="#gone">a</a>', "index.html: #gone has no such anchor"),
        ('<a href="other.html#gone">a</a>', "index.html: other.html#gone has no such anchor"),
        ('<script src="https://example.org/a.js"></script>', "index.html fetches https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "index.html fetches //example.org/a.css"),
    ],
)
def test_what_is_broken_is_named(site, body, complaint):
    assert check_site.complaints(site(index=body, other="")) == [complaint]


def test_no_site_at_all_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="make docs"):
        check_site.complaints(Path(tmp_path))


@pytest.fixture
def html():
    markdown = pytest.importorskip("markdown", reason="of the extra docs, which `make docs` installs")
    pytest.importorskip("latex2mathml", reason="of the extra docs, which `make docs` installs")
    return lambda text: markdown.markdown(text, extensions=[load("mathematics").Mathematics()])


@pytest.mark.parametrize("text", [r"is :math:`\theta_1^*` here", r"is $\theta_1^*$ here"])
def test_formulas_become_mathml(html, text):
    found = html(text)
    assert found.startswith("<p>is <math ")
    assert found.endswith("</math> here</p>")
    assert "<msubsup>" in found


def test_a_block_is_a_formula_of_its_own_and_may_have_several_lines(html):
    found = html("Before.\n\n.. math:: a \\approx\n    \\tfrac1n b\n\nAfter.")
    assert found.count('<p class="formula"><math ') == 1
    assert 'display="block"' in found
    assert "<mfrac>" in found
    assert found.endswith("<p>After.</p>")


@pytest.mark.parametrize("text", ["`$x$`", "costs $5 and $6", "``:math:``"])
def test_what_is_no_formula_stays(html, text):
    assert "<math" not in html(text)
