"""Fair fights on a small problem: what is chosen, what is stored, and the page."""

import json
import sys

import pytest

from benchmarks import fair_fights, fair_fights_page, strengths
from rwalk import RWalkConfig

SMALL = ("fine-tuning", "RWalk, laplace", "RWalk, laplace, at the average", "L2-SP")
UNTUNED = ("RWalk, laplace, untuned", "RWalk, laplace, at the average, untuned")


@pytest.fixture
def small(monkeypatch):
    problem = {"benchmark": "permuted-digits", "n_experiences": 2, "shuffle_classes": True, "hidden": (16,)}
    problem |= {"epochs": 1, "batch_size": 64, "optimizer": "sgd", "lr": 0.1}
    methods = {label: fair_fights.METHODS[label] for label in SMALL}
    methods["L2-SP"] = ({"method": "l2-sp"}, "options.strength", (0.001, 2.0))
    monkeypatch.setattr(fair_fights, "PROBLEMS", {"small": problem})
    monkeypatch.setattr(fair_fights, "METHODS", methods)
    monkeypatch.setattr(fair_fights, "ALL", (*methods, *UNTUNED))
    monkeypatch.setattr(fair_fights, "CONFIRMATION", (100, 101))


def test_strengths_are_chosen_on_held_out_data_and_other_streams_confirm(small, tmp_path, monkeypatch):
    stored, page = tmp_path / "reproductions" / "results.json", tmp_path / "page.md"
    places = ["--runs", str(tmp_path / "runs"), "--json", str(stored), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", ["fair_fights", *places])
    fair_fights.main()
    found = json.loads(stored.read_text())["problems"]["small"]
    points = found["tried"]["L2-SP"]
    chosen = found["chosen"]["L2-SP"]["options"]["strength"]
    at_chosen = next(point["average_accuracy"] for point in points if point["value"] == chosen)
    assert at_chosen == max(point["average_accuracy"] for point in points)
    values = [point["value"] for point in points]
    assert {0.001, 2.0} < set(values)
    inside = values[0] < chosen < values[-1]
    assert inside or len(values) == 2 + strengths.BEYOND
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["L2-SP"]["config"]["validation"] == 0.0
    assert list(rows["L2-SP"]["seeds"]) == ["100", "101"]
    plain, averaged = (rows[label] for label in UNTUNED)
    assert {row["config"]["rwalk"]["ewc_lambda"] for row in (plain, averaged)} == {RWalkConfig.laplace().ewc_lambda}
    assert [row["config"].get("average_weights", False) for row in (plain, averaged)] == [False, True]
    assert plain["mean"] != averaged["mean"]
    text = page.read_text()
    best = max(
        (row for row in rows.values() if row["label"] not in UNTUNED),
        key=lambda row: row["mean"]["average_accuracy"],
    )
    assert f"| {best['label']} | 1 | 1.0 |" in text
    assert [text.count(f"| {label} | default |") for label in UNTUNED] == [1, 1]
    assert not any(f"| {label} | 1 |" in text for label in UNTUNED)  # they have no rank
    assert f"{100 * rows['L2-SP']['mean']['average_accuracy']:.1f} ±" in text
    assert (tmp_path / "reproductions.svg").read_text().count("L2-SP") == 1
    problem = fair_fights.PROBLEMS["small"]
    for changes, kept in (({}, True), ({"lr": 0.2}, False)):  # a problem with other settings is fought anew
        monkeypatch.setattr(fair_fights, "PROBLEMS", {"small": problem | changes})
        again = json.loads(stored.read_text())
        again["problems"]["small"]["rows"][0]["errors"] = {"5": "left as it is"}
        again["problems"]["small"]["rows"][-1]["differences"] = {}
        stored.write_text(json.dumps(again))
        monkeypatch.setattr(sys, "argv", ["fair_fights", "--methods", "L2-SP", *places])
        fair_fights.main()
        one = json.loads(stored.read_text())["problems"]["small"]
        assert (one["rows"][0]["errors"] == {"5": "left as it is"}) is kept
        assert [row["label"] for row in one["rows"]] == [row["label"] for row in found["rows"]]
        if kept:
            again = {**found, "rows": [{**found["rows"][0], "errors": {"5": "left as it is"}}, *found["rows"][1:]]}
            assert one == again


def test_of_which_a_stream_diverged_stands_below_those_of_which_none_did():
    def row(label, accuracy, seeds):
        mean = {"average_accuracy": accuracy, "forgetting": 0.1}
        deviation = {"average_accuracy": 0.01, "forgetting": 0.01}
        return {"label": label, "mean": mean, "deviation": deviation, "seeds": dict.fromkeys(seeds), "differences": {}}

    rows = [row("wild", 0.9, "1"), row("calm", 0.5, "12")]
    problem = {"rows": rows, "chosen": {"wild": {}, "calm": {}}, "tried": {}, "development": [20, 21]}
    stored = {"date": "", "versions": {"torch": ""}, "problems": {"one": problem}}
    text = fair_fights_page.page(stored, ["one", "another"])
    assert text.index("| calm |  | 50.0 ± 1.0") < text.index("| wild (1 of 2: the others diverged) |")
    assert "| calm | 1 | 1.0 |" in text
    assert "| wild | 2 | 2.0 |" in text
    assert "Chosen on 2, judged on 2 streams." in text
    assert "Not run to the end yet: another." in text
