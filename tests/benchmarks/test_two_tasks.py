"""Two tasks, watched: how strengths are chosen, what is stored, and the table."""

import json

import pytest

from benchmarks import choose_lambda, pairs, strengths, two_tasks
from rwalk import RWalkConfig


@pytest.mark.parametrize(
    ("best", "expected", "chosen"),
    [
        (1.0, [0.1, 1.0, 10.0], 1.0),
        (100.0, [0.1, 1.0, 10.0, 100.0, 1000.0], 100.0),
        (1e-9, [0.001, 0.01, 0.1, 1.0, 10.0], 0.001),
    ],
)
def test_a_strength_at_the_end_is_followed_up_to_twice(best, expected, chosen):
    found = strengths.tried((0.1, 1.0, 10.0), lambda values: [abs(value - best) for value in values], lambda off: -off)
    assert (list(found[0]), found[1]) == (expected, chosen)


def test_strengths_are_judged_by_both_tasks_on_streams_of_their_own(monkeypatch):
    def learn(name, seed, config, *, held_out):
        assert held_out
        return seed + config.ewc_lambda, 1.0

    monkeypatch.setattr(two_tasks, "learn", learn)
    assert two_tasks._on_held_out("digits", RWalkConfig(), (2.0, 4.0)) == [
        (10.5 + 2.0 + 1.0) / 2,
        (10.5 + 4.0 + 1.0) / 2,
    ]


@pytest.mark.parametrize("preset", ["laplace", "paper"])
def test_a_pair_is_learned_with_and_without_data_at_the_tasks_end(monkeypatch, preset):
    monkeypatch.syspath_prepend(str(choose_lambda.EXAMPLES))
    held = pairs.learn("digits", 10, RWalkConfig.preset(preset), held_out=True)
    free = pairs.learn("digits", 10, RWalkConfig.preset(preset, ewc_lambda=0.0), held_out=True)
    assert held[0] > free[0] + 10.0
    assert min(held[1], free[1]) > 80.0


def test_the_table_compares_stream_by_stream(monkeypatch):
    monkeypatch.setattr(two_tasks, "ALL", ("laplace", "other", "absent"))
    tried = [{"value": 40.0, "held_out": 1.0}]
    rows = [
        {"label": "laplace", "lambda": 40.0, "tried": tried, "a": [80.0, 90.0], "b": [90.0, 90.0]},
        {"label": "other", "lambda": 0.0, "tried": [], "a": [78.0, 84.0], "b": [90.0, 90.0]},
    ]  # fmt: skip
    text = two_tasks.markdown({"problems": {"pair": {"rows": rows}}})
    assert "| laplace | 87.5 ± 3.5; λ 40 |" in text
    assert "| absent | – |" in text
    assert "| other | 85.5 ± 2.1 (-2.0 [-14.7, 10.7]) |" in text


def test_strengths_by_trial_are_each_streams_own(monkeypatch):
    monkeypatch.syspath_prepend(str(choose_lambda.EXAMPLES))
    (a, b), strength = pairs.learn_by_trial("digits", 10, RWalkConfig.laplace())
    free = pairs.learn("digits", 10, RWalkConfig.laplace(ewc_lambda=0.0), held_out=False)
    assert strength in {400.0, 4000.0, 40000.0}
    assert a > free[0] + 10.0
    assert b > 80.0
    monkeypatch.setattr(two_tasks, "learn_by_trial", lambda name, seed, config: ((80.0, float(seed)), 4000.0 - seed))
    (row,) = two_tasks.study("digits", [two_tasks.BY_TRIAL])
    assert row["b"] == [20.0, 21.0, 22.0, 23.0, 24.0]
    assert two_tasks.strength(row) == "3976/3977/3978/3979/3980"


def test_a_row_run_alone_leaves_the_others_as_they_are_stored(monkeypatch, tmp_path):
    row = {"lambda": 1.0, "tried": [], "a": [80.0, 90.0], "b": [90.0, 90.0]}
    monkeypatch.setattr(two_tasks, "chosen_before", lambda name, label: {**row, "lambda": float(len(label))})
    for methods in ("paper", "laplace"):
        arguments = ["two_tasks", "--problems", "digits", "--methods", methods, "--json", str(tmp_path / "x.json")]
        monkeypatch.setattr("sys.argv", arguments)
        two_tasks.main()
    rows = json.loads((tmp_path / "x.json").read_text())["problems"]["digits"]["rows"]
    assert [(each["label"], each["lambda"]) for each in rows] == [("laplace", 7.0), ("paper", 5.0)]
