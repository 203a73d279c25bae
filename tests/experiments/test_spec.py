"""What a run is: valid specs, and one clear line about each that is not."""

import copy

import pytest
from pydantic import ValidationError

from rwalk import RWalkConfig
from rwalk.experiments import METHODS, RunSpec, load_spec
from rwalk.experiments.loading import build_spec
from rwalk.experiments.spec import DEFAULTS
from rwalk.streams import benchmarks

DIGITS = {"benchmark": "split-digits", "method": "rwalk"}


def refusal(values, **overrides):
    """The one line that says why."""
    with pytest.raises(ValueError, match=r".") as caught:
        build_spec(values, **overrides)
    assert not isinstance(caught.value, ValidationError)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_benchmark_brings_its_usual_settings(name):
    spec = RunSpec(benchmark=name, method="rwalk")
    for key, value in DEFAULTS[name].items():
        if key != "rwalk":
            assert getattr(spec, key) == value
    for method, settings in DEFAULTS[name]["rwalk"].items():
        assert RunSpec(benchmark=name, method=method).rwalk == settings
    assert spec.rwalk_config == RWalkConfig(**DEFAULTS[name]["rwalk"]["rwalk"])


@pytest.mark.parametrize(
    ("method", "settings", "tuned"),
    [
        ("fine-tuning", {}, True),
        ("joint", {}, True),
        ("rwalk", {}, True),
        ("ewc++", {}, True),
        ("rwalk-facil", {}, False),
        ("rwalk-facil", {"rwalk": {"ewc_lambda": 2.0}}, True),
        ("mas", {}, False),
        ("rwalk", {"benchmark": "permuted-mnist"}, False),
        ("rwalk", {"benchmark": "permuted-mnist", "rwalk": {"ewc_lambda": 30.0}}, True),
        ("rwalk", {"benchmark": "rotated-mnist"}, False),
    ],
)
def test_whether_a_strength_was_chosen_for_the_benchmark(method, settings, tuned):
    assert RunSpec(**{"benchmark": "split-digits", "method": method, **settings}).is_tuned() is tuned


def test_what_is_given_wins_over_what_is_usual():
    spec = RunSpec(**DIGITS, epochs=2, lr=0.5, rwalk={"delta_t": 3})
    assert (spec.epochs, spec.lr) == (2, 0.5)
    assert spec.batch_size == DEFAULTS["split-digits"]["batch_size"]
    assert spec.rwalk == {**DEFAULTS["split-digits"]["rwalk"]["rwalk"], "delta_t": 3}
    assert RunSpec(**DIGITS, rwalk={"ewc_lambda": 0.25}).rwalk_config.ewc_lambda == 0.25


def test_none_is_as_good_as_not_given():
    assert RunSpec(**DIGITS, epochs=None, exemplars=None, rwalk=None) == RunSpec(**DIGITS)


def test_the_usual_settings_are_not_changed_by_use():
    before = copy.deepcopy(DEFAULTS)
    RunSpec(**DIGITS, rwalk={"delta_t": 3}).rwalk["ewc_alpha"] = 0.1
    assert before == DEFAULTS


@pytest.mark.parametrize("classifier", ["nearest-mean", "discriminant"])
def test_where_exemplars_judge_there_have_to_be_some(classifier):
    message = refusal({**DIGITS, "classifier": classifier})
    assert message == f"classifier={classifier!r} needs exemplars: give exemplars or exemplars_total"
    assert RunSpec(**DIGITS, classifier=classifier, exemplars_total=9).classifier == classifier


def test_a_spec_survives_being_written_down():
    spec = RunSpec(**DIGITS, exemplars=3, rwalk={"penalty": "proximal"}, hidden=(8, 4), shuffle_classes=True)
    assert RunSpec(**spec.model_dump(mode="json")) == spec


def test_unknown_names_list_the_known_ones():
    message = refusal({**DIGITS, "benchmark": "cifar"})
    assert message.startswith("unknown benchmark 'cifar': ")
    assert all(name in message for name in benchmarks())
    message = refusal({**DIGITS, "method": "ewc"})
    assert message == f"unknown method 'ewc' (did you mean 'ewc++'?): choose one of {', '.join(METHODS)}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("exemplars", -1),
        ("exemplars", 1.5),
        ("replay_batch_size", 0),
        ("n_experiences", 0),
        ("epochs", 0),
        ("epochs", "many"),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("optimizer", "lbfgs"),
        ("hidden", [8, 0]),
        ("hidden", 16),
        ("sizes", "5"),
        ("epochs", True),
        ("lr", True),
        ("seed", False),
        ("exemplars", True),
        ("validation", False),
        ("replay_batch_size", True),
        ("seed", -1),
        ("seed", 2**70),
        ("shuffle_classes", "perhaps"),
        ("threads", 0),
        ("rwalk", 5),
    ],
)
def test_a_value_out_of_range_is_named_with_its_key(key, value):
    message = refusal({**DIGITS, key: value})
    assert message.startswith(key)
    assert repr(value) in message or str(value) in message or isinstance(value, list)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ewc_lambda": -1.0}, "ewc_lambda=-1.0: expected"),
        ({"ewc_alpha": 1.5}, "ewc_alpha=1.5: expected"),
        ({"delta_t": 0}, "delta_t=0: expected"),
        ({"delta_t": 1.5}, "delta_t=1.5: expected"),
        ({"lambda": 1.0}, "unknown setting 'lambda' (did you mean 'ewc_lambda'?): RWalkConfig knows"),
    ],
)
def test_rwalks_own_settings_are_checked_by_rwalk(settings, expected):
    assert refusal({**DIGITS, "rwalk": settings}).startswith(expected)


@pytest.mark.parametrize("key", ["hidden", "sizes", "class_order"])
def test_true_is_no_number_in_a_list_and_a_number_no_list(key):
    assert refusal({**DIGITS, key: [True, 2]}) == f"{key}=[True, 2]: expected numbers, not true or false"
    assert refusal({**DIGITS, key: 16}).startswith(f"{key}=16: expected a list, such as [16]")


@pytest.mark.parametrize("missing", ["benchmark", "method"])
def test_benchmark_and_method_are_needed(missing):
    message = refusal({key: value for key, value in DIGITS.items() if key != missing})
    assert message.startswith(f"no {missing} given: name one")


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RunSpec(**DIGITS).epochs = 3


def test_a_file_is_read_and_overrides_win(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("benchmark: split-digits\nmethod: rwalk\nepochs: 4\nrwalk: {delta_t: 7, ewc_alpha: 0.5}\n")
    spec = load_spec(path)
    assert (spec.epochs, spec.rwalk_config.delta_t, spec.rwalk_config.ewc_alpha) == (4, 7, 0.5)
    changed = load_spec(path, epochs=2, method=None, rwalk={"delta_t": 3})
    assert (changed.epochs, changed.method) == (2, "rwalk")
    assert (changed.rwalk_config.delta_t, changed.rwalk_config.ewc_alpha) == (3, 0.5)
    assert load_spec(path, rwalk={}) == spec


def test_without_a_file_everything_comes_from_options():
    assert load_spec(None, **DIGITS, epochs=None) == RunSpec(**DIGITS)


def test_no_override_hides_what_is_wrong_in_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("benchmark: split-digits\nmethod: rwalk\nrwalk: 5\n")
    with pytest.raises(ValueError, match="rwalk=5"):
        load_spec(path, rwalk={})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1, 2", "run.yaml is not YAML: "),
        ("- split-digits\n- rwalk\n", "run.yaml: expected keys and values"),
        ("", "run.yaml: expected keys and values"),
        ("benchmark: split-digits\nmethod: rwalk\nepochs: none\n", "epochs='none': "),
        ("benchmark: split-digits\nmethod: rwalk\nepoch: 3\n", "unknown key 'epoch'"),
    ],
)
def test_a_file_that_is_no_spec_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r".") as caught:
        load_spec(path)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no spec file at .*missing\.yaml"):
        load_spec(tmp_path / "missing.yaml")


def test_a_number_without_a_dot_before_its_exponent_is_a_number(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("benchmark: split-digits\nmethod: rwalk\nlr: 1e-3\nrwalk: {damping: 1e-3, ewc_lambda: 2E+1}\n")
    spec = load_spec(path)
    assert (spec.lr, spec.rwalk_config.damping, spec.rwalk_config.ewc_lambda) == (1e-3, 1e-3, 20.0)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"benchmark: \xe9")
    with pytest.raises(ValueError, match=r"latin\.yaml is not YAML"):
        load_spec(tmp_path / "latin.yaml")
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        load_spec(tmp_path)
