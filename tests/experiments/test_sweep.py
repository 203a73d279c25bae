"""Sweeps: which runs a grid is made of, what is refused, and the table of what came out."""

import csv
import json

import pytest

from experiments.small import SMALL, small
from rwalk.experiments import run_all
from rwalk.experiments.pool import Outcome
from rwalk.experiments.sweep import load_sweep
from rwalk.experiments.tidy import tidy, write_tables

BASE = {key: value for key, value in SMALL.items() if key != "benchmark"}
PLAN = {
    "seeds": 2,
    "base": {**BASE, "rwalk": {"delta_t": 5}},
    "grid": {"benchmark": ["split-digits", "permuted-digits"], "lambda": [1.0, 10]},
    "methods": {"fine-tuning": {}, "rwalk": {"lr": [0.1]}, "lwf": {"lambda": 2.0}},
}


def test_every_method_has_every_combination_and_lambda_is_each_methods_own_strength():
    specs = load_sweep(PLAN).specs()
    assert list(specs) == [
        "fine-tuning, split-digits",
        "fine-tuning, permuted-digits",
        "rwalk, split-digits, λ 1",
        "rwalk, split-digits, λ 10",
        "rwalk, permuted-digits, λ 1",
        "rwalk, permuted-digits, λ 10",
        "lwf, split-digits",
        "lwf, permuted-digits",
    ]
    assert (specs["fine-tuning, split-digits"].rwalk, specs["fine-tuning, split-digits"].options) == ({}, {})
    assert specs["rwalk, permuted-digits, λ 10"].rwalk == {"delta_t": 5, "ewc_lambda": 10}
    assert specs["rwalk, permuted-digits, λ 10"].lr == 0.1
    assert specs["lwf, split-digits"].options == {"strength": 2.0}


def test_a_file_is_changed_key_by_key(tmp_path):
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN))
    sweep = load_sweep(tmp_path / "plan.yaml", base={"epochs": 4, "rwalk": {"ewc_alpha": 0.5}}, seeds=1)
    spec = sweep.specs()["rwalk, split-digits, λ 1"]
    assert (sweep.seeds, spec.epochs, spec.hidden) == ((0,), 4, (16,))
    assert spec.rwalk == {"delta_t": 5, "ewc_alpha": 0.5, "ewc_lambda": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["rwlk"]}, "unknown method 'rwlk' (did you mean 'rwalk'?): choose one of"),
        ({"grd": {}}, "unknown key 'grd' (did you mean 'grid'?): a sweep has seeds, base"),
        ({"base": {**PLAN["base"], "epoch": 1}}, "unknown key 'epoch' (did you mean 'epochs'?)"),
        (
            {"grid": {"benchmark": "split-digits", "rwalk.ewc_lamda": [1]}, "methods": ["rwalk"]},
            "unknown setting 'ewc_lamda' (did you mean",
        ),
        ({"grid": {"lr": []}}, "grid.lr: no values to try"),
        ({"grid": {"lr": [0.1, 0.1]}}, "grid.lr=[0.1, 0.1]: expected different values"),
        ({"grid": {"lr": [1, 0.1, 1.0]}}, "grid.lr=[1, 0.1, 1.0]: expected different values; 1.0 is one of the others"),
        ({"grid": [1]}, "grid=[1]: expected keys with values to try"),
        (
            {"methods": {"fine-tuning": {"lambda": 1}}, "base": BASE},
            "methods.fine-tuning: lambda=[1]: this method has no strength",
        ),
        ({"methods": ["fine-tuning"]}, "rwalk.delta_t=5: none of fine-tuning reads it"),
        ({"methods": {"lwf": {"rwalk.delta_t": 3}}, "base": BASE}, "rwalk.delta_t=3: method 'lwf' does not read"),
        ({"grid": {"seed": [1]}}, "grid: seed=[1]: each run has every seed"),
        ({"base": {"method": "pi"}}, "base: method=pi: name methods under 'methods'"),
        ({"base": {"lambda": 1}}, "base: lambda=1: give it in grid"),
        ({"seeds": 10_000}, "expected at most 10000"),
        ({"methods": {}}, "methods={}"),
        (
            {"methods": {"rwalk": {"lambda": [1], "rwalk.ewc_lambda": [2]}}},
            "methods.rwalk: lambda=[1] and rwalk.ewc_lambda=[2] are one setting: give one of them",
        ),
        (
            {"grid": {"lambda": [1]}, "methods": {"rwalk": {"rwalk.ewc_lambda": [2]}}},
            "methods.rwalk: lambda=[1] and rwalk.ewc_lambda=[2] are one setting",
        ),
        (
            {"grid": {"benchmark": "split-digits", "lr": [0.10000001, 0.10000002]}, "methods": ["rwalk"]},
            "two runs are called 'rwalk, lr 0.1': give values that differ in six digits",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_any_run(change, message):
    with pytest.raises(ValueError, match=r".") as caught:
        load_sweep({**PLAN, **change})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_a_run_and_a_column_for_what_differs(tmp_path):
    specs = {"one": small(rwalk={"ewc_lambda": 3.0}), "none": small("fine-tuning", lr=0.5)}
    outcomes = [*run_all(specs, [0], jobs=1, folder=tmp_path / "runs"), Outcome("none", 1, error="=gone")]
    rows = tidy(list(reversed(outcomes)), specs)
    assert [(row["label"], row["seed"], row["strength"], row["lr"], row["status"]) for row in rows] == [
        ("one", 0, 3.0, 1e-3, "finished"),
        ("none", 0, None, 0.5, "finished"),
        ("none", 1, None, 0.5, "failed"),
    ]
    result = next(outcome.result for outcome in outcomes if outcome.label == "one")
    assert rows[0]["average_accuracy"] == result.metrics["average_accuracy"]
    assert (tmp_path / "runs" / rows[0]["run"] / "result.json").is_file()
    assert "epochs" not in rows[0]
    files = write_tables(rows, tmp_path)
    with files[0].open() as file:
        read = list(csv.DictReader(file))
    assert [row["error"] for row in read] == ["", "", "'=gone"]  # no formula
    assert float(read[0]["average_accuracy"]) == rows[0]["average_accuracy"]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(files[1]).to_pylist() == rows
