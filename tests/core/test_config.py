"""The config refuses what it cannot mean, and says what it expected."""

import dataclasses
import math

import pytest

from rwalk import RWalkConfig

OUT_OF_RANGE = [
    ("ewc_lambda", -0.1, "a finite number ≥ 0"),
    ("ewc_lambda", math.inf, "a finite number ≥ 0"),
    ("ewc_lambda", math.nan, "a finite number ≥ 0"),
    ("ewc_alpha", -1e-9, "a number in [0, 1]"),
    ("ewc_alpha", 1.5, "a number in [0, 1]"),
    ("ewc_alpha", math.nan, "a number in [0, 1]"),
    ("delta_t", 0, "at least 1 optimizer step"),
    ("delta_t", -3, "at least 1 optimizer step"),
    ("fisher_every", 0, "at least 1 step"),
    ("distance_factor", 0.0, "a finite number > 0"),
    ("penalty_factor", -1.0, "a finite number > 0"),
    ("fisher_source", "epoch", "one of 'step', 'loader'"),
    ("fisher_start", 0, "one of 'first', 'zero'"),
    ("fisher_boundary", "drop", "one of 'keep', 'reset'"),
    ("fisher_in_score", "end", "one of 'window_end', 'window_start'"),
    ("distance", "manhattan", "one of 'riemannian', 'euclidean'"),
    ("window_phase", "epoch", "one of 'task', 'run'"),
    ("score_average", "median", "one of 'mean', 'mean_from_zero', 'sum', 'accumulate'"),
    ("terms", (), "one of 'both', 'fisher', 'score'"),
    ("damping", 0.0, "a finite number > 0, 'machine' or None"),
    ("damping", -1.0, "a finite number > 0, 'machine' or None"),
    ("damping", math.inf, "a finite number > 0, 'machine' or None"),
    ("damping_scale", "Relative", "one of 'absolute', 'relative'"),
    ("rectify", "never", "one of 'window', 'task', 'penalty'"),
    ("scaling", None, "one of 'max', 'minmax', 'sum', 'none'"),
    ("anchors", "first", "one of 'weighted', 'latest'"),
    ("proximal_rate", "adam", "one of 'lr', 'optimizer'"),
    ("fisher_samples", 0, "at least 1 sample of each task (None: all)"),
    ("unfinished", "keep", "one of 'flush', 'drop', 'carry'"),
    ("penalty", "prox", "one of 'gradient', 'proximal'"),
]
WRONG_TYPE = [
    ("ewc_lambda", "1", "a finite number ≥ 0"),
    ("ewc_lambda", True, "a finite number ≥ 0"),
    ("ewc_lambda", None, "a finite number ≥ 0"),
    ("ewc_alpha", "0.9", "a number in [0, 1]"),
    ("delta_t", 10.0, "a whole number ≥ 1"),
    ("delta_t", True, "a whole number ≥ 1"),
    ("damping", "small", "a finite number > 0, 'machine' or None"),
    ("alpha_warmup", 1, "True or False"),
    ("include", "encoder.*", "a sequence of glob patterns"),
    ("include", 3, "a sequence of glob patterns"),
    ("exclude", None, "a sequence of glob patterns"),
    ("exclude", (1,), "a sequence of glob patterns"),
]


@pytest.mark.parametrize(
    ("error", "name", "value", "expected"),
    [(ValueError, *case) for case in OUT_OF_RANGE] + [(TypeError, *case) for case in WRONG_TYPE],
)
def test_an_error_names_setting_value_and_what_is_expected(error, name, value, expected):
    with pytest.raises(error) as caught:
        RWalkConfig(**{name: value})
    assert str(caught.value).startswith(f"{name}={value!r}: expected ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ewc_lambda", 0),
        ("ewc_alpha", 0),
        ("ewc_alpha", 1),
        ("delta_t", 1),
        ("damping", math.ulp(0.0)),
        ("damping", None),
        ("damping", "machine"),
    ],
)
def test_bounds_themselves_are_accepted(name, value):
    assert getattr(RWalkConfig(**{name: value}), name) == value


def test_settings_are_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        RWalkConfig(0.1)


def test_defaults_are_the_published_method():
    config = RWalkConfig()
    assert (config.ewc_lambda, config.ewc_alpha, config.delta_t, config.alpha_warmup) == (0.1, 0.9, 10, False)
    assert (config.damping, config.damping_scale, config.rectify) == (None, "absolute", "penalty")
    assert (config.scaling, config.unfinished, config.penalty) == ("max", "flush", "gradient")


def test_frozen_and_hashable():
    config = RWalkConfig(include=["a.*"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.ewc_lambda = 1.0
    assert config.include == ("a.*",)
    assert hash(config) == hash(RWalkConfig(include=("a.*",)))


def test_replace_changes_only_what_it_is_told_and_validates():
    config = RWalkConfig(ewc_lambda=3.0, include=("a",))
    changed = config.replace(delta_t=50)
    assert changed == RWalkConfig(ewc_lambda=3.0, include=("a",), delta_t=50)
    assert config.delta_t == 10
    with pytest.raises(ValueError, match="ewc_alpha=2"):
        config.replace(ewc_alpha=2)
    with pytest.raises(TypeError, match="lambda_"):
        config.replace(lambda_=1)


def test_to_dict_and_from_dict_are_inverse_and_cover_every_setting():
    config = RWalkConfig(ewc_lambda=2.0, damping=1e-3, scaling="none", exclude=("*.bias",))
    values = config.to_dict()
    assert set(values) == {field.name for field in dataclasses.fields(RWalkConfig)}
    assert RWalkConfig.from_dict(values) == config
    assert RWalkConfig.from_dict({**values, "exclude": ["*.bias"]}) == config  # as JSON has it
    assert RWalkConfig.from_dict({}) == RWalkConfig()


def test_from_dict_names_the_unknown_setting_and_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown setting 'ewc_lamda'.*ewc_lambda.*exclude"):
        RWalkConfig.from_dict({"ewc_lamda": 1.0, "delta_t": 5})


def test_from_dict_validates():
    with pytest.raises(ValueError, match="delta_t=0"):
        RWalkConfig.from_dict({"delta_t": 0})


@pytest.mark.parametrize(
    "name", ["paper", "avalanche", "facil", "agem", "capymoa", "ewc_plus_plus", "path_integral", "laplace"]
)
def test_a_preset_is_a_class_method_that_takes_changes(name):
    config = getattr(RWalkConfig, name)(ewc_lambda=9.0)
    assert config == RWalkConfig.preset(name).replace(ewc_lambda=9.0)
    assert (RWalkConfig.preset(name) == RWalkConfig()) == (name == "paper")


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown preset 'avalance'.*avalanche.*path_integral"):
        RWalkConfig.preset("avalance")


def test_strength_is_lambda_times_factor():
    assert RWalkConfig(ewc_lambda=3.0, penalty_factor=0.5).strength == 1.5


@pytest.mark.parametrize("name", ["ewc_lambda", "ewc_alpha", "distance_factor", "penalty_factor", "decay", "damping"])
def test_whole_numbers_are_the_same_setting_as_their_floats(name):
    config = RWalkConfig(**{name: 1})
    assert config == RWalkConfig(**{name: 1.0})
    assert type(getattr(config, name)) is float
    assert repr(config) == repr(RWalkConfig(**{name: 1.0}))
