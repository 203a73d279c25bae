"""Published tables: what they hold, what is stored of a reproduction, and the page made of it."""

import json
import re

import pytest

from rwalk.experiments import RunResult, RunSpec, summarise
from rwalk.experiments import reproduce as module
from rwalk.experiments.page import reproduction_page
from rwalk.experiments.pool import Outcome
from rwalk.experiments.reproduce import load_table, report, tables
from rwalk.metrics import AccuracyMatrix

TABLE = """
title: A small table
source: Somebody 2018
seeds: 3
intransigence: false
base: {benchmark: split-digits, n_experiences: 2, lr: 1e-2}
runs:
  ours: {method: rwalk}
  theirs: {method: fine-tuning}
published:
  ours: {average_accuracy: [0.8, 0.05], forgetting: 0.1}
protocol: [epochs are not known; chosen on held-out data]
quick: {seeds: 1, base: {epochs: 1}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of tables with one in it."""
    monkeypatch.setattr(module, "_folder", lambda: tmp_path)
    (tmp_path / "small.yaml").write_text(TABLE)
    return tmp_path


def outcome(label, seed, old, new, joint=None):
    matrix = AccuracyMatrix(2)
    matrix.record(0, [0.9, 0.0])
    matrix.record(1, [old, new])
    spec = RunSpec(benchmark="split-digits", method="rwalk", seed=seed)
    return Outcome(label, seed, RunResult(spec, matrix, 2.0, None if joint is None else (None, joint)))


@pytest.fixture
def stored(folder):
    """What is stored of a reproduction of which one run failed."""
    outcomes = [outcome("ours", 0, 0.7, 0.8, joint=0.9), outcome("ours", 1, 0.8, 0.9, joint=0.95)]
    outcomes += [outcome("theirs", 0, 0.2, 1.0, joint=0.9), Outcome("theirs", 1, error="OSError: gone")]
    rows = summarise(outcomes, ["ours", "theirs"])
    return report("small", load_table("small"), rows, quick=False, wall_seconds=90.0, reused=1)


@pytest.mark.parametrize("name", list(tables()))
@pytest.mark.parametrize("quick", [False, True])
def test_every_table_of_the_package_is_whole(name, quick):
    table = load_table(name, quick=quick)
    assert set(table.published) <= set(table.specs()) == set(table.runs)
    assert table.title == tables()[name]
    assert len(load_table(name, quick=True).seeds) < len(load_table(name).seeds) >= 5


def test_the_tables_that_can_be_reproduced():
    assert set(tables()) >= {
        "eccv2018-mnist-multihead",
        "eccv2018-mnist-singlehead",
        "eccv2018-cifar100",
        "agem2018-cifar100",
        "agem2018-permuted-mnist",
        "avalanche-split-mnist",
    }


def test_a_row_of_long_training_is_quick_too():
    whole, quick = load_table("eccv2018-cifar100"), load_table("eccv2018-cifar100", quick=True)
    assert max(spec.epochs for spec in whole.specs().values()) == 40
    assert {(spec.epochs, spec.only_first) for spec in quick.specs().values()} == {(1, 2)}


def test_the_quick_version_differs_in_seeds_and_base_only(folder):
    table, quick = load_table("small"), load_table("small", quick=True)
    assert (table.seeds, quick.seeds) == ((0, 1, 2), (0,))
    for label, spec in table.specs().items():
        assert quick.specs()[label] == spec.model_copy(update={"epochs": 1})
        assert (spec.lr, spec.epochs) == (0.01, 30)
    assert (quick.published, quick.title, quick.protocol) == (table.published, table.title, table.protocol)
    assert load_table("small", seeds=4).seeds == (0, 1, 2, 3)
    assert load_table("small", quick=True, seeds=2).seeds == (0, 1)


def test_some_rows_of_a_table_are_the_same_runs(folder):
    table = load_table("small")
    assert load_table("small", rows=[]).runs == table.runs
    ours, theirs = load_table("small", rows=["ours"]), load_table("small", rows=["theirs"], seeds=1)
    assert (ours.specs(), ours.published) == ({"ours": table.specs()["ours"]}, table.published)
    assert (theirs.specs(), theirs.published) == ({"theirs": table.specs()["theirs"]}, {})
    assert (ours.against, theirs.against, theirs.seeds) == ("ours", "theirs", (0,))
    assert list(load_table("small", rows=["theirs", "ours"]).runs) == ["ours", "theirs"]
    with pytest.raises(
        ValueError, match=r"^table small: unknown row 'our' \(did you mean 'ours'\?\): choose one of 'ours'"
    ):
        load_table("small", rows=["theirs", "our"])


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", sorted(tables()))
def test_each_row_can_be_run_alone(name, quick):
    specs = load_table(name, quick=quick).specs()
    for label, spec in specs.items():
        assert load_table(name, quick=quick, rows=[label]).specs() == {label: spec}


def test_an_unknown_table_lists_the_known_ones(folder):
    with pytest.raises(ValueError, match=r"^unknown table 'large': choose one of small$"):
        load_table("large")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: A small table\n", "", "table small: no title given"),
        ("protocol:", "protokol:", "table small: unknown key 'protokol'"),
        ("  ours: {average", "  hers: {average", "published figures of 'hers', which is not among the runs"),
        ("forgetting: 0.1", "forgot: 0.1", "published 'forgot' of 'ours': choose one of average_accuracy"),
        ("forgetting: 0.1", "forgetting: 10.0", "published forgetting=10.0 of 'ours': expected fractions"),
        ("[0.8, 0.05]", "[80.0, 5.0]", "expected fractions, not per cent"),
        ("quick: {seeds", "quick: {seed", "unknown key 'quick.seed'"),
        ("method: rwalk", "method: walk", "table small: run 'ours': unknown method 'walk'"),
        ("runs:", "runs: [", "is not YAML"),
        ("lr: 1e-2", "lr: -1", "lr=-1"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_before_any_run(folder, old, new, message):
    assert old in TABLE
    (folder / "small.yaml").write_text(TABLE.replace(old, new, 1))
    with pytest.raises(ValueError, match=r".") as caught:
        load_table("small")
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_published_figures_stay_with_their_rows(stored):
    ours, theirs = stored["rows"]
    assert (ours["label"], theirs["label"]) == ("ours", "theirs")
    assert theirs["published"] == {}
    accuracy, forgetting = ours["published"]["average_accuracy"], ours["published"]["forgetting"]
    assert (accuracy["value"], accuracy["deviation"]) == (0.8, 0.05)
    assert accuracy["difference"] == pytest.approx((0.75 + 0.85) / 2 - 0.8)
    assert (forgetting["value"], forgetting["deviation"]) == (0.1, None)
    assert forgetting["difference"] == pytest.approx((0.2 + 0.1) / 2 - 0.1)
    json.dumps(stored, allow_nan=False)


def test_figures_without_a_run_have_no_difference(folder):
    rows = summarise([Outcome("ours", 0, error="gone"), outcome("theirs", 0, 0.5, 0.5)], ["ours", "theirs"])
    found = report("small", load_table("small"), rows, quick=True, wall_seconds=1.0)
    assert found["rows"][0]["published"]["average_accuracy"]["difference"] is None
    assert found["quick"]


def cells(page, label):
    """The row of a Markdown table that begins with a label."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_counts_one_seed_in_the_singular(stored, tmp_path):
    (tmp_path / "small.json").write_text(json.dumps(stored | {"seeds": [0]}))
    assert "; 1 seed, 1.5 minutes" in reproduction_page(tmp_path, tmp_path / "page.md")


def test_the_page_names_rows_and_seeds_that_are_not_the_tables_own(folder, stored, tmp_path):
    (tmp_path / "small.json").write_text(json.dumps(stored | {"seeds": [1, 3], "rows": stored["rows"][:1]}))
    assert "`rwalk reproduce small --row ours --seeds 4`: " in reproduction_page(tmp_path, tmp_path / "page.md")


def test_the_page_shows_what_is_stored(stored, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "small.json").write_text(json.dumps(stored))
    (results / "small.svg").write_text("<svg/>")
    page = reproduction_page(results, tmp_path / "docs" / "page.md")
    assert "## A small table" in page
    assert "`rwalk reproduce small`: Somebody 2018; 3 seeds, 1.5 minutes (1 of 4 runs were finished before)" in page
    ours = [
        "ours (2 of 3 seeds)",
        "80.0 ± 5.0",
        "80.0 ± 7.1",
        "+0.0",
        "0.100",
        "0.150 ± 0.071",
        "+0.050",
        "–",
        "0.075 ± 0.035",
        "–",
        "2",
    ]
    assert cells(page, "ours (2 of 3 seeds)") == ours
    assert cells(page, "theirs (1 of 3 seeds)")[1:4] == ["–", "60.0", "–"]
    assert "- failed: theirs, seed 1: OSError: gone" in page
    assert "- epochs are not known; chosen on held-out data" in page
    assert "](../results/small.svg)" in page
    lines = page.splitlines()
    rows = [index for index, line in enumerate(lines) if line.startswith("|")]
    assert rows == list(range(rows[0], rows[0] + 4))  # nothing stands between the rows of the table
    assert len({len(re.findall(r"\|", lines[index])) for index in rows}) == 1


def test_a_folder_without_results_or_with_other_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no stored reproduction in"):
        reproduction_page(tmp_path)
    for content, message in (
        ("{", "is not JSON"),
        ('{"rows": []}', "is no stored reproduction"),
        ("[]", "is no stored"),
    ):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            reproduction_page(tmp_path)
