"""Fair fights on a small problem: what is chosen, what is stored, and the page."""

import json
import sys

import pytest

from benchmarks import fair_fights
from rwalk import RWalkConfig


@pytest.fixture
def small(monkeypatch):
    problem = {"benchmark": "permuted-digits", "n_experiences": 2, "shuffle_classes": True, "hidden": (16,)}
    problem |= {"epochs": 1, "batch_size": 64, "optimizer": "sgd", "lr": 0.1}
    methods = {label: fair_fights.METHODS[label] for label in ("fine-tuning", "RWalk, laplace", "L2-SP")}
    methods["L2-SP"] = ({"method": "l2-sp"}, "options.strength", (0.001, 2.0))
    monkeypatch.setattr(fair_fights, "PROBLEMS", {"small": problem})
    monkeypatch.setattr(fair_fights, "METHODS", methods)
    monkeypatch.setattr(fair_fights, "CONFIRMATION", (100, 101))


def test_strengths_are_chosen_on_held_out_data_and_other_streams_confirm(small, tmp_path, monkeypatch):
    stored, page = tmp_path / "reproductions" / "results.json", tmp_path / "page.md"
    places = ["--runs", str(tmp_path / "runs"), "--json", str(stored), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["fair_fights", *places])
    fair_fights.main()
    found = json.loads(stored.read_text())["problems"]["small"]
    points = found["tried"]["L2-SP"]
    assert [point["value"] for point in points] == [0.001, 2.0]
    chosen = max(points, key=lambda point: point["average_accuracy"])["value"]
    assert found["chosen"]["L2-SP"]["options"]["strength"] == chosen
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["L2-SP"]["config"]["validation"] == 0.0
    assert list(rows["L2-SP"]["seeds"]) == ["100", "101"]
    assert rows[fair_fights.UNTUNED]["config"]["rwalk"]["ewc_lambda"] == RWalkConfig.laplace().ewc_lambda
    text = page.read_text()
    best = max(
        (row for row in rows.values() if row["label"] != fair_fights.UNTUNED),
        key=lambda row: row["mean"]["average_accuracy"],
    )
    assert f"| {best['label']} | 1 | 1.0 |" in text
    assert f"{100 * rows['L2-SP']['mean']['average_accuracy']:.1f} ±" in text
    assert (tmp_path / "reproductions.svg").read_text().count("L2-SP") == 1
