"""The demonstration, on fewer seeds and epochs."""

import io
import re

import pytest
from rich.console import Console

from rwalk.cli import demo as demonstration
from rwalk.experiments import read_result, run_all
from rwalk.experiments.summary import mean_and_deviation


@pytest.fixture
def short(monkeypatch):
    """The demonstration's specs with one epoch, run in this process; runs finish in no order."""

    def in_no_order(*work):
        done = list(run_all(*work, jobs=1))
        return sorted(done, key=lambda run: run.seed * (-1 if run.label == "replay" else 1))

    for name in ("KEEPING", "SPECS"):
        specs = getattr(demonstration, name)
        specs = {label: spec.model_copy(update={"epochs": 1}) for label, spec in specs.items()}
        monkeypatch.setattr(demonstration, name, specs)
    monkeypatch.setattr(demonstration, "run_all", in_no_order)


def test_every_method_is_compared_over_the_seeds_and_every_run_kept(short, tmp_path):
    console = Console(record=True, width=300, file=io.StringIO(), force_terminal=True)
    demonstration.demo(console, 2, tmp_path / "runs")
    text = console.export_text()
    labels = list(demonstration.SPECS)
    stored = {
        label: [read_result(tmp_path / "runs" / label.replace(" ", "") / f"seed-{seed}") for seed in (0, 1)]
        for label in labels
    }
    for label, results in stored.items():
        assert [result["config"]["seed"] for result in results] == [0, 1]
        mean = sum(result["average_accuracy"] for result in results) / 2
        assert re.search(rf"{re.escape(label)}\s.*{100 * mean:.1f} ± ", text)
    for label in demonstration.KEEPING:
        folder = tmp_path / "runs" / label.replace(" ", "")
        kept = [read_result(folder / f"seed-{seed}")["accuracy_matrix"][1][0] for seed in (0, 1)]
        first = re.search(
            rf"{label.partition(',')[0]}\s[^\n]*±[^\n]*?([\d.]+) ± [\d.]+\s*│\s*[\d.]+ ± [\d.]+\s*│", text
        )
        assert float(first[1]) == pytest.approx(100 * sum(kept) / 2, abs=0.051)
    pairs = zip(stored["RWalk + replay"], stored["replay"], strict=True)
    gains = [ours["average_accuracy"] - theirs["average_accuracy"] for ours, theirs in pairs]
    mean, deviation = mean_and_deviation(gains)
    assert f"accuracy {100 * mean:+.1f} ± {100 * deviation:.1f} points" in text
    assert f"more accurate on {sum(gain > 0 for gain in gains)} of 2 seeds" in text


def test_runs_kept_earlier_are_not_replaced_unasked(short, tmp_path):
    console = Console(file=io.StringIO())
    demonstration.demo(console, 1, tmp_path)
    first = read_result(tmp_path / "replay" / "seed-0")["seconds"]
    with pytest.raises(FileExistsError, match="holds another run"):
        demonstration.demo(console, 1, tmp_path)
    assert read_result(tmp_path / "replay" / "seed-0")["seconds"] == first
    demonstration.demo(console, 1, tmp_path, overwrite=True)


def test_it_compares_fine_tuning_rwalk_and_both_with_replay_on_embedded_data():
    assert list(demonstration.SPECS) == ["fine-tuning", "RWalk", "replay", "RWalk + replay"]
    assert {spec.benchmark for spec in demonstration.SPECS.values()} == {"split-digits"}
    assert demonstration.SEEDS >= 5
    with_, without = demonstration.SPECS["RWalk + replay"], demonstration.SPECS["replay"]
    assert with_.model_copy(update={"method": without.method, "rwalk": without.rwalk}) == without


def test_what_the_demonstration_claims_holds():
    """Two seeds in full: RWalk + replay is ahead of fine-tuning and of replay alone."""
    names = ("fine-tuning", "replay", "RWalk + replay")
    found = {name: [] for name in names}
    for outcome in run_all({name: demonstration.SPECS[name] for name in names}, [0, 1], jobs=1):
        found[outcome.label].append(outcome.result.metrics)
    accuracy, forgetting = (
        {label: sum(metrics[name] for metrics in runs) / 2 for label, runs in found.items()}
        for name in ("average_accuracy", "forgetting")
    )
    assert accuracy["RWalk + replay"] > accuracy["replay"] > accuracy["fine-tuning"]
    assert forgetting["RWalk + replay"] < forgetting["replay"] < forgetting["fine-tuning"]
