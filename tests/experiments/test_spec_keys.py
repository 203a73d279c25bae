"""Every key of a spec: valid values survive, others are refused in one line that names the key."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwalk.experiments import METHODS, RunSpec
from rwalk.experiments.loading import build_spec
from rwalk.experiments.pool import run_name
from rwalk.experiments.spec import LATER
from rwalk.replay.samplers import SAMPLERS

DIGITS = {"benchmark": "split-digits", "method": "rwalk"}

VALID = {
    "benchmark": st.sampled_from(["split-digits", "permuted-digits", "online-mnist", "split:owner/name"]),
    "method": st.sampled_from(list(METHODS)),
    "rwalk": st.fixed_dictionaries({}, optional={"ewc_lambda": st.floats(0, 9), "delta_t": st.integers(1, 9)}),
    "options": st.just({}),
    "n_experiences": st.none() | st.integers(1, 99),
    "class_order": st.none() | st.permutations(range(10)).map(tuple),
    "sizes": st.none() | st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    "only_first": st.none() | st.integers(1, 99),
    "shuffle_classes": st.booleans(),
    "task_labels": st.just(True),
    "model": st.sampled_from(
        ["mlp", "paper-cnn", "resnet18", "slim-resnet18", "resnet32", "text-mlp", "mine.nets:net"]
    ),
    "model_options": st.dictionaries(st.sampled_from(["width", "dropout"]), st.integers(1, 9)),
    "hidden": st.lists(st.integers(1, 99), max_size=3).map(tuple),
    "heads": st.sampled_from(["single", "masked", "multi", "growing"]),
    "exemplars": st.integers(0, 99),
    "sampler": st.sampled_from([name for name, kind in SAMPLERS.items() if kind.by_class]),
    "replay_batch_size": st.none() | st.integers(1, 99) | st.just("balanced"),
    "epochs": st.integers(1, 99),
    "batch_size": st.integers(1, 999),
    "lr": st.floats(1e-6, 10.0),
    "optimizer": st.sampled_from(["adam", "adamw", "sgd", "momentum"]),
    "reset_optimizer": st.booleans(),
    "average_weights": st.booleans(),
    "validation": st.floats(0.0, 0.9),
    "test_ahead": st.booleans(),
    "seed": st.integers(0, 2**63 - 1),
    "device": st.sampled_from(["cpu", "cuda:0"]),
    "precision": st.sampled_from(["float32", "bfloat16"]),
    "threads": st.integers(1, 64),
}

ALWAYS = ("benchmark", "method", "task_labels")

INVALID = [
    ("n_experiences", 0),
    ("class_order", "ascending"),
    ("class_order", [0, 1.5]),
    ("sizes", [2, 0]),
    ("sizes", 5),
    ("task_labels", "perhaps"),
    ("model", "transformer"),
    ("model", 5),
    ("model_options", [1]),
    ("heads", "two"),
    ("precision", "float16"),
    ("classifier", "nearest"),
    ("options", 3),
    ("exemplars_total", 0),
    ("sampler", "best"),
    ("sampler_layer", 3),
    ("replay_batch_size", "even"),
    ("replay_batch_size", 0),
    ("validation", 1.0),
    ("validation", -0.1),
    ("benchmark", 5),
    ("device", 0),
]


def refusal(values):
    with pytest.raises(ValueError, match=r".") as caught:
        build_spec(values)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_every_key_is_tried():
    assert set(VALID) | {"exemplars_total", "sampler_layer", "classifier"} == set(RunSpec.model_fields)


@given(
    st.fixed_dictionaries(
        {key: VALID[key] for key in ALWAYS},
        optional={key: values for key, values in VALID.items() if key not in ALWAYS},
    )
)
@settings(max_examples=60)
def test_a_spec_written_out_in_full_is_the_same_spec(values):
    if METHODS[values["method"]].preset is None and values.pop("rwalk", {}):
        assert "does not read settings of RWalk" in refusal({**values, "rwalk": {"delta_t": 1}})
    spec = build_spec(values)
    written = json.loads(json.dumps(spec.canonical(), allow_nan=False))
    again = build_spec(written)
    assert again.canonical() == spec.canonical()
    assert again.rwalk_config == spec.rwalk_config
    given_ones = {key: value for key, value in values.items() if value is not None and key != "rwalk"}
    assert {key: (LATER | written)[key] for key in given_ones} == json.loads(json.dumps(given_ones))


@pytest.mark.parametrize("key", sorted(set(VALID) - set(ALWAYS)))
def test_a_default_written_out_changes_nothing(key):
    spec = build_spec(DIGITS)
    written_out = build_spec({**DIGITS, key: getattr(spec, key)})
    assert written_out.canonical() == spec.canonical()


@pytest.mark.parametrize(("key", "value"), INVALID)
def test_a_value_that_cannot_be_is_refused_with_its_key(key, value):
    message = refusal({**DIGITS, key: value})
    assert key in message
    assert str(value) in message or repr(value) in message or isinstance(value, list)
    assert "[" not in message.partition("=")[0]  # the key as it is written in a file


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"exemplars": 2, "exemplars_total": 9}, "exemplars=2, exemplars_total=9: expected one of the two budgets"),
        ({"exemplars": 2, "sampler": "reservoir"}, "exemplars=2: sampler 'reservoir' chooses among all classes"),
        ({"sampler": "entropy", "sampler_layer": "fc"}, "sampler_layer='fc': sampler 'entropy' looks at no features"),
        ({"heads": "multi"}, "heads='multi': a head for each task needs task_labels=true"),
        ({"heads": "current", "method": "lwf"}, "heads='current' has no scores of past classes, which 'lwf' holds"),
        ({"benchmark": "split:"}, "'split:' names no data"),
        ({"benchmark": "shuffled:mnist"}, "unknown scenario 'shuffled'"),
        ({"benchmark": "split:./no-such-folder"}, "no folder ./no-such-folder"),
        ({"benchmark": "split-minst"}, "unknown benchmark 'split-minst': did you mean split-mnist"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values, message):
    assert refusal({**DIGITS, **values}).startswith(message)


def test_a_whole_number_names_the_same_run_as_its_float():
    whole, real = (build_spec({**DIGITS, "lr": one, "rwalk": {"ewc_lambda": one}}) for one in (1, 1.0))
    assert run_name(whole) == run_name(real)
    assert run_name(whole) != run_name(build_spec({**DIGITS, "lr": 1, "rwalk": {"ewc_lambda": 2}}))
