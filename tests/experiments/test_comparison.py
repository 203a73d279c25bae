"""Comparisons: which runs, what is said of them, and the plane."""

import xml.etree.ElementTree as ET

import pytest
from scipy import stats

from rwalk.experiments import RunResult, RunSpec, load_comparison, summarise
from rwalk.experiments.comparison import build_comparison
from rwalk.experiments.pool import Outcome
from rwalk.metrics import AccuracyMatrix
from rwalk.report.plane import draw_plane

DIGITS = {"benchmark": "split-digits", "n_experiences": 2}
RUNS = {"ours": {"method": "rwalk"}, "theirs": {"method": "fine-tuning"}}


def outcome(label, seed, old, new, *, joint=None, reused=False):
    """A run of two tasks: 0.9 on the first at first, then ``old`` on it and ``new`` on the second."""
    matrix = AccuracyMatrix(2)
    matrix.record(0, [0.9, 0.0])
    matrix.record(1, [old, new])
    spec = RunSpec(**DIGITS, method="rwalk", seed=seed)
    return Outcome(label, seed, RunResult(spec, matrix, 1.5, None if joint is None else (None, joint)), reused=reused)


def refusal(values):
    with pytest.raises(ValueError, match=r".") as caught:
        build_comparison(values)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_runs_differ_from_the_base_in_what_they_say():
    plan = build_comparison(
        {
            "base": {**DIGITS, "epochs": 2, "rwalk": {"delta_t": 5, "ewc_lambda": 1.0}},
            "runs": {"a": {"method": "rwalk", "rwalk": {"ewc_lambda": 2.0}}, "b": {"method": "ewc++", "epochs": 3}},
            "seeds": 2,
        }
    )
    a, b = plan.specs().values()
    assert (a.epochs, a.rwalk_config.delta_t, a.rwalk_config.ewc_lambda) == (2, 5, 2.0)
    assert (b.epochs, b.rwalk_config.delta_t, b.rwalk_config.ewc_lambda) == (3, 5, 1.0)
    assert plan.seeds == (0, 1)
    assert plan.intransigence


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": {}}, "runs={}: "),
        ({"seeds": 0}, "seeds=0: expected at least 1"),
        ({"seeds": [1, 1]}, "seeds=[1, 1]: expected different seeds"),
        ({"seeds": True}, "seeds=True: expected seeds"),
        (
            {"base": {**DIGITS, "rwalk": [1]}, "runs": {"ours": {"method": "mas"}}},
            "rwalk=[1]: none of mas reads it",
        ),
        ({"seeds": []}, "seeds=[]: expected different seeds"),
        ({"seeds": [-1]}, "seeds.0=-1: "),
        ({"against": "nobody"}, "against='nobody': choose one of the runs ours, theirs"),
        ({"methods": ["rwalk"]}, "unknown key 'methods': a comparison has seeds, base, runs, against, intransigence"),
        ({"base": {**DIGITS, "seed": 3}}, "seed=3: each run has every seed; give seeds"),
        ({"runs": {"ours": {"method": "rwalk", "seed": 3}}}, "seed=3: each run has every seed; give seeds"),
        ({"runs": {"ours": {"method": "walk"}}}, "run 'ours': unknown method 'walk'"),
        ({"base": {"benchmark": "split-digits", "epochs": 0}}, "run 'ours': epochs=0"),
        ({"runs": {"ours": None}}, "runs.ours=None: "),
    ],
)
def test_what_is_no_comparison_is_refused_in_one_line(changes, message):
    assert refusal({"base": DIGITS, "runs": RUNS, **changes}).startswith(message)


def test_a_comparison_without_runs_says_so():
    assert refusal({"base": DIGITS}) == "no runs given: a comparison needs it"


def test_a_file_holds_a_comparison(tmp_path):
    path = tmp_path / "comparison.yaml"
    path.write_text(
        "seeds: [3, 5]\nagainst: ours\nintransigence: false\nbase: {benchmark: split-digits, lr: 1e-2}\n"
        "runs:\n  ours: {method: rwalk}\n  theirs: {method: fine-tuning}\n"
    )
    plan = load_comparison(path)
    assert (plan.seeds, plan.against, plan.intransigence) == ((3, 5), "ours", False)
    assert [spec.lr for spec in plan.specs().values()] == [0.01, 0.01]


def test_rows_hold_means_deviations_and_paired_differences_in_any_order():
    ours = {0: (0.5, 0.9), 1: (0.6, 0.7), 2: (0.7, 0.8)}
    theirs = {0: (0.3, 0.9), 1: (0.5, 0.9), 2: (0.4, 0.7)}
    outcomes = [outcome("ours", seed, *values, joint=0.95) for seed, values in ours.items()]
    outcomes += [outcome("theirs", seed, *values, joint=0.95) for seed, values in theirs.items()]
    first, second = summarise(outcomes[::-1], ["ours", "theirs"], "theirs")
    assert (first.label, second.label) == ("ours", "theirs")
    accuracies = {name: [sum(pair) / 2 for pair in values.values()] for name, values in (("o", ours), ("t", theirs))}
    assert first.spread("average_accuracy") == pytest.approx((0.7, stats.tstd(accuracies["o"])))
    assert first.spread("forgetting") == pytest.approx((0.3, 0.1))
    assert first.spread("intransigence") == pytest.approx((0.15, 0.1))
    assert second.differences == {}
    expected = stats.ttest_rel(accuracies["o"], accuracies["t"]).confidence_interval()
    found = first.differences["average_accuracy"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.wins, found.pairs) == (2, 3)
    assert first.differences["forgetting"].mean == pytest.approx(-0.2)
    assert first.seconds == pytest.approx(4.5)


def test_differences_are_over_the_seeds_that_both_finished():
    outcomes = [outcome("ours", seed, 0.5 + seed / 10, 0.9) for seed in (0, 1, 2)]
    outcomes += [outcome("theirs", 1, 0.2, 0.9), Outcome("theirs", 0, error="gone"), outcome("theirs", 2, 0.3, 0.9)]
    ours, theirs = summarise(outcomes, ["ours", "theirs"])
    assert theirs.errors == {0: "gone"}
    assert sorted(theirs.results) == [1, 2]
    assert ours.differences["average_accuracy"].pairs == 2
    assert ours.differences["average_accuracy"].mean == pytest.approx(0.2)
    assert "intransigence" not in ours.differences
    stored = theirs.to_dict()
    assert stored["errors"] == {"0": "gone"}
    assert list(stored["seeds"]) == ["1", "2"]


def test_a_label_whose_runs_all_failed_has_no_figures():
    outcomes = [Outcome("ours", 0, error="gone"), outcome("theirs", 0, 0.5, 0.5)]
    ours, theirs = summarise(outcomes, ["ours", "theirs"], "ours")
    assert ours.spread("average_accuracy") is None
    assert theirs.differences == {}
    assert ours.to_dict()["mean"] == dict.fromkeys(ours.to_dict()["mean"])


def test_the_plane_shows_every_label_that_has_both_figures(tmp_path):
    outcomes = [outcome("ours", seed, 0.5 + seed / 10, 0.9, joint=0.95) for seed in (0, 1)]
    outcomes += [outcome("theirs", 0, 0.2, 0.6)]
    rows = summarise(outcomes, ["ours", "theirs"])
    path = draw_plane(rows, tmp_path / "deep" / "plane.svg", title="A title")
    assert path == tmp_path / "deep" / "plane.svg"
    text = path.read_text()
    words = {element.text for element in ET.fromstring(text).iter() if element.text}
    axes = {f"{name} in points (lower is better)" for name in ("forgetting", "intransigence")}
    assert {"ours", "A title", *axes} <= words
    assert "theirs" not in words
    assert draw_plane(rows, tmp_path / "again.svg", title="A title").read_text() == text


def test_without_intransigence_there_is_no_plane(tmp_path):
    rows = summarise([outcome("ours", 0, 0.5, 0.9)], ["ours"])
    assert draw_plane(rows, tmp_path / "plane.svg") is None
    assert list(tmp_path.iterdir()) == []
