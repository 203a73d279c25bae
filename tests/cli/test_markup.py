"""Names, labels and errors are text: no styles, links or HTML come from them, and no traceback."""

import json
from types import SimpleNamespace

import pytest

from cli.shells import open_shell
from rwalk.experiments.page import reproduction_page
from rwalk.experiments.reproduce import report
from rwalk.experiments.summary import Row
from rwalk.report.plane import draw_plane

NASTY = "[/red] [link=http://x]a[/link] <script>alert(1)</script> | $\\frac{1}$ \x1b[2J"


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


def test_a_comparison_of_nasty_labels_prints_them_as_they_are(shell, tmp_path):
    plan = {
        "seeds": 1,
        "intransigence": False,
        "base": {"benchmark": "split-digits", "n_experiences": 2, "epochs": 1, "hidden": [4]},
        "runs": {NASTY: {"method": "rwalk"}, "../../up": {"method": "fine-tuning"}},
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    status, out, err = shell("compare", "--spec", "plan.yaml", "--out", "deep/out", "--jobs", "1")
    assert (status, err) == (0, "")
    assert "[/red] [link=http://x]a[/link] <script>" in out
    assert "\x1b" not in out
    outside = {path.name for path in tmp_path.iterdir()} | {path.name for path in (tmp_path / "deep").iterdir()}
    assert outside == {"plan.yaml", "deep", "out"}


def test_errors_are_one_short_printable_line(shell, tmp_path):
    status, out, err = shell("run", "--benchmark", "\x1b[31m[/red]" + "x" * 5000, "--method", "rwalk", "--out", "o")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert len(err) <= 500
    assert err.strip().isprintable()


def test_a_page_holds_no_html_of_a_stored_file(tmp_path):
    from rwalk.experiments.reproduce import load_table, tables

    name = next(iter(tables()))
    table = load_table(name)
    stored = report(name, table, [Row(NASTY, {}, {0: NASTY})], quick=False, wall_seconds=1.0)
    stored |= {"title": NASTY, "source": NASTY, "protocol": [NASTY]}
    (tmp_path / "table.json").write_text(json.dumps(stored))
    page = reproduction_page(tmp_path)
    assert "<script>" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") >= 4
    (tmp_path / "table.json").write_text(json.dumps({**stored, "rows": [{"label": "a"}]}))
    with pytest.raises(ValueError, match="is no stored reproduction"):
        reproduction_page(tmp_path)


def test_a_label_that_is_no_mathematics_is_drawn(tmp_path):
    result = SimpleNamespace(metrics={"forgetting": 0.1, "intransigence": 0.2}, seconds=1.0)
    rows = [Row(NASTY, {0: result}), Row("_hidden", {0: result})]
    path = draw_plane(rows, tmp_path / "plane.svg", title="$\\broken")
    text = path.read_text()
    assert "<script>" not in text
    assert "_hidden" in text
