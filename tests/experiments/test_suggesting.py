"""Suggestions by Optuna: what it is told, and in which direction it looks."""

import pytest

from experiments.small import SMALL, small
from rwalk.experiments import RunResult
from rwalk.experiments.suggesting import Suggestions
from rwalk.experiments.summary import Row
from rwalk.metrics import AccuracyMatrix

optuna = pytest.importorskip("optuna")


def row(label, forgotten, errors=None):
    matrix = AccuracyMatrix(2)
    matrix.record(0, [0.9, 0.0])
    matrix.record(1, [0.9 - forgotten, 0.7])
    return Row(label, {} if errors else {0: RunResult(small(), matrix, 1.0)}, errors or {})


@pytest.mark.parametrize("metric", ["forgetting", "average_accuracy"])  # the less the better, and the more
def test_it_is_told_figures_or_failure_and_looks_for_the_better(metric):
    base = {**SMALL, "method": "rwalk"}
    suggested = Suggestions(base, {"rwalk.ewc_lambda": (0.1, 100.0)}, metric)
    bad, good, failed = suggested.ask(3)
    rows = [row(bad, 0.4), row(good, 0.1), row(failed, 0.0, {0: "killed"})]
    suggested.tell(rows)
    trials = suggested._study.trials
    assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * 2 + [optuna.trial.TrialState.FAIL]
    assert [trial.value for trial in trials] == [*(each.spread(metric)[0] for each in rows[:2]), None]
    assert suggested._study.best_trial.number == 1
