"""A study as CSV, Markdown and TeX: the numbers are those of the runs, and names are text."""

import csv
import io
import platform
from dataclasses import replace

import pytest

from cli.shells import open_shell
from report.runs import HOSTILE, comparison, result
from rwalk.report import collect
from rwalk.report.formats import as_csv, as_markdown, as_tex


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    labels = {HOSTILE: {"keep": 0.5}, "=SUM(A1)|x": {"keep": 0.9, "rwalk": {"ewc_lambda": 2.0}}}
    return comparison(tmp_path_factory.mktemp("formats"), labels, seeds=2)


def test_csv_is_a_row_a_run(folder):
    rows = list(csv.DictReader(io.StringIO(as_csv(collect([folder])))))
    assert [row["seed"] for row in rows] == ["0", "1", "0", "1"]
    assert float(rows[1]["forgetting"]) == result(seed=1, keep=0.5).metrics["forgetting"]
    assert [row["rwalk.ewc_lambda"] for row in rows[1:3]] == ["3.0", "2.0"]
    assert rows[2]["label"] == "'=SUM(A1)|x"  # no formula


def test_markdown_shows_names_as_text(folder):
    text = as_markdown(collect([folder]))
    assert "<script>" not in text.partition("```")[0]  # what stands between fences is code
    assert "\x1b" not in text
    assert f"Versions: python {platform.python_version()}" in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    heads = [line for line in tables if "average accuracy" in line]
    assert heads
    for line in tables[: tables.index(heads[0]) + 4]:
        assert line.replace("\\|", "").count("|") == heads[0].count("|")


def test_markdown_names_failed_runs(folder):
    study = collect([folder])
    failed = replace(study.groups[0], label="a_b", errors={"4": "ValueError: <b>"})
    assert "\n- failed: a\\_b, seed 4: ValueError: &lt;b&gt;\n" in as_markdown(replace(study, groups=[failed]))


def test_tex_is_a_table(folder):
    text = as_tex(collect([folder]))
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    columns = text.split("\\begin{tabular}{")[1].split("}")[0]
    assert all(line.replace("\\&", "").count("&") == len(columns) - 1 for line in body.splitlines()[1:])
    assert "\\$x\\textasciicircum{}2\\$" in body
    assert "\\{\\{7*7\\}\\}" in body
    weak, best = body.splitlines()[1:]
    assert (weak.count("\\textbf"), best.count("\\textbf{")) == (0, len(columns))


def test_a_name_that_begins_as_an_option_of_tex_does_is_none(tmp_path):
    labels = {"[2pt] x": {"keep": 0.5}, "*": {"keep": 0.6}, "best": {"keep": 0.9}}
    body = as_tex(collect([comparison(tmp_path, labels, seeds=1)])).split("\\midrule\n")[1]
    assert [line.partition(" & ")[0] for line in body.splitlines()[:2]] == ["{}[2pt] x", "{}*"]


def test_the_command_writes_each_format(folder, tmp_path, monkeypatch, capsys):
    shell = open_shell(tmp_path, monkeypatch, capsys)
    for name in ("a.md", "a.csv", "a.tex", "a.svg"):
        status, _, err = shell("report", str(folder), "--out", name)
        assert (status, err) == (0, "")
    assert (tmp_path / "a.csv").read_text() == as_csv(collect([folder]))
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert shell("report", str(folder), "--out", "figures", "--format", "png", "--figure", "layers-fisher")[0] == 0
    (made,) = (tmp_path / "figures").iterdir()
    assert made.name == "layers-fisher.png"
    assert made.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "a.docx"], "expected one of html, csv, md, tex, png, svg, pdf"),
        (["--format", "docx"], "--format docx"),
        (["--out", "a.csv", "--format", "md"], "name two formats"),
        (["--out", "a.png", "--figure", "nothing"], "choose one of"),
        (["--weights", "w"], "none"),
        (["--out", "a.csv", "--figure", "plane"], "--figure plane: csv has no figures; give --out a name in png, svg"),
        (["--figure", "plane"], "--figure plane: html has all figures; give --out a name in png, svg"),
    ],
)
def test_what_cannot_be_written_is_refused(folder, tmp_path, monkeypatch, capsys, arguments, told):
    shell = open_shell(tmp_path, monkeypatch, capsys)
    status, out, err = shell("report", str(folder), *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert told in err
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_named(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("text")
    shell = open_shell(tmp_path, monkeypatch, capsys)
    for name in ("x.md", "x.svg", "deep/x.html"):
        status, _, err = shell("report", str(folder), "--out", f"file/{name}")
        assert (status, err.count("\n")) == (1, 1)
        assert f"file/{name} cannot be written: file is no folder; choose another place" in err
    assert (tmp_path / "file").read_text() == "text"


def test_without_plotly_one_line_says_what_to_install(folder, tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.setitem(sys.modules, "plotly", None)
    shell = open_shell(tmp_path, monkeypatch, capsys)
    status, _, err = shell("report", str(folder), "--out", "a.html")
    assert (status, err.count("\n")) == (1, 1)
    assert "pip install 'rwalk[report]'" in err
    assert list(tmp_path.iterdir()) == []
