"""The preset with one part changed: what each variant does to importances and to the penalty's strength."""

import pytest
import torch

from benchmarks import variants
from rwalk.experiments.runner import run
from rwalk.experiments.spec import RunSpec
from rwalk.training import BasePlugin

SCORES = {"a": torch.tensor([[1.0, 3.0]]), "b": torch.tensor([4.0, 0.0])}
SPEC = {
    "benchmark": "split-digits", "method": "rwalk-laplace", "only_first": 3, "heads": "masked", "epochs": 1,
    "batch_size": 64, "validation": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "a", "b"),
    [
        (variants.shares, [0.125, 0.375], [0.5, 0.0]),
        (variants.shares_by_layer, [0.125, 0.375], [0.5, 0.0]),
        (variants.largest_by_layer, [1 / 3, 1.0], [1.0, 0.0]),
        (variants.over_quantile(0.5), [0.5, 1.0], [1.0, 0.0]),
        (variants.roots, [1 / (3 + 3**0.5), 3**0.5 / (3 + 3**0.5)], [2 / (3 + 3**0.5), 0.0]),
    ],
)
def test_scales(scale, a, b):
    found = scale(SCORES)
    assert found["a"].flatten().tolist() == pytest.approx(a)
    assert found["b"].tolist() == pytest.approx(b)


class Watch(BasePlugin):
    """Notes the strength at each step and the importances after each task."""

    def __init__(self):
        self.strengths, self.importances = [], []

    def before_training_iteration(self, strategy, **_):
        self.strengths.append(variants.core(strategy).config.ewc_lambda)

    def after_training_exp(self, strategy, **_):
        self.importances.append({n: value.clone() for n, value in variants.core(strategy).importances().items()})


def watched(rwalk, *plugins):
    watch = Watch()
    run(RunSpec(**SPEC, rwalk=rwalk), plugins=[*plugins, watch])
    return watch


def test_shares_of_ones_own_are_the_presets():
    ours = watched({"ewc_lambda": 400.0, **variants.RAW}, variants.Rescaled(variants.shares)).importances
    theirs = watched({"ewc_lambda": 400.0}).importances
    for one, other in zip(ours, theirs, strict=True):
        for name, value in other.items():
            torch.testing.assert_close(one[name], value, rtol=1e-4, atol=1e-9)


def test_the_penalty_grows_over_a_part_of_each_task():
    watch = watched({"ewc_lambda": 400.0}, variants.WarmUp(0.5))
    steps, whole = [], len(watch.strengths)
    for strength in watch.strengths:
        if strength == 0.0:
            steps.append([])
        steps[-1].append(strength)
    assert len(steps) == 3
    assert sum(map(len, steps)) == whole
    for task in steps:
        full = max(1, round(0.5 * len(task)))
        assert task == pytest.approx([400.0 * min(1.0, step / full) for step in range(len(task))])


def test_a_variant_is_judged_over_its_seeds_and_told(monkeypatch):
    problem = {key: value for key, value in SPEC.items() if key not in ("method", "validation")}
    monkeypatch.setattr(variants, "STREAMS", {"digits": {**problem, "only_first": 2, "development": (1, 2)}})
    row = variants.study("digits", "over half of it")
    assert {400.0, 4000.0, 40000.0} <= {each["value"] for each in row["tried"]}
    assert all(len(each["A"]) == len(each["F"]) == 2 for each in row["tried"])
    rows = [
        {"label": "laplace", "lambda": 4.0, "tried": [{"value": 4.0, "A": [70.0, 72.0], "F": [0.1, 0.3]}]},
        {"label": "over the largest", "lambda": 1.0, "tried": [{"value": 1.0, "A": [69.0, 72.0], "F": [0.1, 0.2]}]},
    ]
    table = variants.markdown({"streams": {"digits": rows}}).splitlines()
    assert table[2:4] == [
        "| laplace | 71.0 ± 1.4, 0.200; 4 |",
        "| over the largest | 70.5 ± 2.1 (-0.5 [-6.9, 5.9]), 0.150; 1 |",
    ]
    assert table[4].endswith("| – |")
