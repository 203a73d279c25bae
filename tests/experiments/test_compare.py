"""Several methods over several seeds."""

import pytest

from rwalk.experiments import RunSpec, run
from rwalk.experiments.compare import mean_and_deviation, run_all

SPEC = RunSpec(benchmark="split-digits", method="fine-tuning", epochs=1, n_experiences=2, hidden=(8,), seed=99)


def test_every_spec_runs_with_every_seed():
    specs = {"plain": SPEC, "replay": SPEC.model_copy(update={"exemplars": 1})}
    found = list(run_all(specs, [3, 4], jobs=1))
    assert sorted((label, result.spec.seed) for label, result in found) == [
        ("plain", 3),
        ("plain", 4),
        ("replay", 3),
        ("replay", 4),
    ]
    results = {(label, result.spec.seed): result for label, result in found}
    alone = run(SPEC.model_copy(update={"seed": 4}))
    assert results["plain", 4].matrix.tolist() == alone.matrix.tolist()
    assert results["replay", 3].spec.exemplars == 1


def test_in_several_processes_the_results_are_the_same():
    here, there = (
        {result.spec.seed: result.matrix.tolist() for _, result in run_all({"plain": SPEC}, [0, 1], jobs=jobs)}
        for jobs in (1, 2)
    )
    assert there == here


def test_mean_and_sample_deviation():
    assert mean_and_deviation([1.0, 2.0, 3.0]) == (2.0, pytest.approx(1.0))
    assert mean_and_deviation([0.5]) == (0.5, 0.0)
