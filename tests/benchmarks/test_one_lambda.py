"""One λ for all: what a common strength loses, and the table; outputs taken for a Gaussian's means."""

import pytest

from benchmarks import choose_lambda, one_lambda, pairs
from rwalk import RWalkConfig

ROW = {
    "label": "a way",
    "lambda": [1.0, 10.0, 100.0],
    "held_out": {"digits": [90.0, 85.0, 60.0], "text": [50.0, 88.0, 90.0], "lora": [80.0, 78.0, 40.0]},
}


def test_the_common_strength_is_least_behind_where_it_is_furthest_behind():
    value, behind = one_lambda.common(ROW)
    assert value == 10.0
    assert behind == pytest.approx({"digits": 5.0, "text": 2.0, "lora": 2.0})


def test_the_table_names_each_best_and_what_one_strength_loses():
    assert "| a way | 90.0, 1 | 90.0, 100 | 80.0, 1 | 10; 5.0, 2.0, 2.0 |" in one_lambda.markdown({"rows": [ROW]})


def test_every_strength_is_judged_on_every_pair(monkeypatch):
    asked = []

    def learn(name, seed, config, *, held_out, likelihood):
        asked.append((name, seed, config.ewc_lambda, held_out, likelihood))
        return float(seed), config.ewc_lambda

    monkeypatch.setattr(one_lambda, "learn", learn)
    monkeypatch.setattr(one_lambda, "WAYS", {"a way": ("laplace", {}, "gaussian", [2.0, 4.0])})
    found = one_lambda.study("a way")
    assert found["held_out"] == {name: [(10.5 + 2.0) / 2, (10.5 + 4.0) / 2] for name in ("digits", "text", "lora")}
    assert set(asked) == {
        (name, seed, lam, True, "gaussian") for name in found["held_out"] for seed in (10, 11) for lam in (2.0, 4.0)
    }


def test_outputs_may_be_taken_for_means_of_variance_one(monkeypatch):
    monkeypatch.syspath_prepend(str(choose_lambda.EXAMPLES))
    config = RWalkConfig.preset("laplace", **one_lambda.FISHER, ewc_lambda=1.0)
    held = pairs.learn("digits", 10, config, held_out=True, likelihood="gaussian")
    free = pairs.learn("digits", 10, config.replace(ewc_lambda=0.0), held_out=True, likelihood="gaussian")
    nats = pairs.learn("digits", 10, config, held_out=True)
    assert held[0] > free[0] + 10.0
    assert held != nats
