"""The registry of methods, and every method in every protocol."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import rwalk.experiments.methods as registry
from experiments.small import small
from rwalk.experiments import METHODS, Method, run
from rwalk.experiments.loading import build_spec
from rwalk.replay.samplers import SAMPLERS

HEADS = ("single", "masked", "multi", "growing")

NEW_FILE = '''"""A method in a file of its own."""

from rwalk.experiments.methods.method import Method

__all__ = ["METHODS"]

METHODS = (Method("patience", "waits", rank=5),)
'''


def options_of(method):
    """What makes a slow method quick."""
    return {"samples": 20} if method == "mas" else {}


# Each method that does something of its own under every head, with and without exemplars in turn, so that any two of
# the three meet; those that differ in settings of the core alone under one head each.
OF_THEIR_OWN = ("fine-tuning", "rwalk", "lwf", "mas", "l2-sp", "joint", "cumulative")
PRESETS = [name for name in METHODS if name not in OF_THEIR_OWN]
PROTOCOLS = [
    *((method, head, 2 * ((i + j) % 2)) for i, method in enumerate(OF_THEIR_OWN) for j, head in enumerate(HEADS)),
    *((method, HEADS[i % 4], 2 * (i // 4 % 2)) for i, method in enumerate(PRESETS)),
]


def test_methods_that_differ_in_the_cores_settings_alone_have_the_plugins_of_rwalk():
    def kinds(name):
        return [type(plugin) for plugin in METHODS[name].plugins(small(name).rwalk_config, {})]

    assert PRESETS
    assert all(kinds(name) == kinds("rwalk") for name in PRESETS)


@pytest.mark.parametrize(("method", "heads", "exemplars"), PROTOCOLS)
def test_every_method_learns_in_every_protocol(method, heads, exemplars):
    spec = small(
        method, heads=heads, task_labels=heads == "multi", exemplars=exemplars, options=options_of(method), lr=0.01
    )
    result = run(spec)
    rows = result.matrix.tolist()
    assert [len(row) for row in rows] == [3, 3, 3]
    assert rows[0][0] > 0.5  # four classes, of which one in four would be right by chance


@pytest.mark.parametrize("method", ["joint", "cumulative"])
def test_upper_bounds_know_the_tasks_of_old_data_under_many_heads(method):
    rows = run(small(method, heads="multi", task_labels=True, epochs=8, lr=0.01)).matrix.tolist()
    assert min(rows[2]) > 0.9


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("heads", ["masked", "multi"])
def test_every_sampler_runs_within_a_budget_for_each_class_or_for_all(sampler, heads):
    settings = {"sampler": sampler, "heads": heads, "task_labels": heads == "multi"}
    budgets = [{"exemplars_total": 20}] + ([{"exemplars": 2}] if SAMPLERS[sampler].by_class else [])
    without = run(small("fine-tuning", **{**settings, "sampler": "uniform"})).matrix.tolist()
    for budget in budgets:
        assert run(small("fine-tuning", **settings, **budget)).matrix.tolist() != without


def test_samplers_that_look_at_features_take_any_layer():
    layers = (None, "features", "classifier.classifier")
    found = [
        run(small("fine-tuning", heads="masked", exemplars=2, sampler="mean-of-features", sampler_layer=layer))
        for layer in layers
    ]
    assert len({str(result.matrix.tolist()) for result in found}) > 1


def test_methods_are_listed_in_their_order_each_with_a_line():
    names = list(METHODS)
    assert names[:2] == ["fine-tuning", "rwalk"]
    assert names[-2:] == ["joint", "cumulative"]
    assert {"ewc++", "pi", "lwf", "mas", "rwalk-avalanche", "rwalk-facil", "rwalk-agem", "rwalk-capymoa"} <= set(names)
    for name, method in METHODS.items():
        assert isinstance(method, Method)
        assert method.name == name
        assert len(method.summary.splitlines()) == 1


def test_a_new_file_in_the_folder_is_a_new_method(tmp_path):
    package = tmp_path / "rwalk"
    shutil.copytree(Path(registry.__file__).parents[2], package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "experiments" / "methods" / "mine.py").write_text(NEW_FILE)
    use = "RunSpec(benchmark='split-digits', method='patience')"
    code = f"from rwalk.experiments import METHODS, RunSpec; print(*METHODS); {use}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fine-tuning", "patience", *list(METHODS)[1:]]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("fine-tuning", {"strength": 1.0}, "options={'strength': 1.0}: this method has no options"),
        ("rwalk", {"strength": 1.0}, "options={'strength': 1.0}: settings of methods made of the core go into rwalk"),
        ("lwf", {"strength": -1.0}, "strength=-1.0: expected a number ≥ 0"),
        (
            "lwf",
            {"strenght": 3},
            "options.strenght=3: unknown (did you mean 'strength'?); this method has strength, temperature",
        ),
        ("l2-sp", {"temperature": 1.0}, "options.temperature=1.0: unknown; this method has strength"),
        ("lwf", {"temperature": [1]}, "options.temperature=[1]: expected a number"),
        ("lwf", {"strength": True}, "options.strength=True: expected a number"),
        ("mas", {"samples": 1.5}, "options.samples=1.5: expected a whole number or null"),
        ("mas", {"samples": 0}, "samples=0: expected at least 1"),
    ],
)
def test_options_that_a_method_does_not_have_are_refused_with_the_spec(method, options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        build_spec({"benchmark": "split-digits", "method": method, "options": options})
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_options_reach_the_method():
    plain = run(small("lwf", lr=0.01)).matrix.tolist()
    assert run(small("lwf", lr=0.01, options={"strength": 0.0})).matrix.tolist() != plain
    assert run(small("fine-tuning", lr=0.01)).matrix.tolist() == (
        run(small("lwf", lr=0.01, options={"strength": 0.0})).matrix.tolist()
    )
