"""Specs, results and checkpoints that were made to do harm, or mutated at random."""

import time

import pytest
import yaml
from fuzz.driver import hunt

from rwalk.experiments import load_comparison, load_spec
from rwalk.experiments.reproduce import load_table
from rwalk.experiments.yaml_files import plain_yaml

BOMB = "\n".join(["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)])
MERGED = "\n".join(
    ["m0: &m0 {a: 1}"] + [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12)]
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("-08", -8), ("0", 0), ("1_000", 1000), ("0x1f", 31), ("0b101", 5), ("1:10", "1:10"),
        ("1:10:30", "1:10:30"), ("1:10.5", "1:10.5"), ("01.5", 1.5), ("1e-3", 1e-3), ("-.5", "-.5"), (".5", 0.5),
        ("1.5e+3", 1500.0), ("+.inf", float("inf")), ("0o17", "0o17"), ("yes", True),
    ],
)  # fmt: skip
def test_numbers_are_what_they_look_like(text, value):
    """YAML 1.1 takes a number that begins with 0 for octal, and one with colons for minutes and seconds."""
    found = plain_yaml(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 20000 values"),
        (MERGED, "more than 20000 values"),
        ("a: &a [*a]", "a list that it is in itself"),
        ("[" * 5000, "lists in lists"),
        ("- " * 3000 + "x", "lists in lists"),
        ("x" * 2**17, "131072 characters of YAML"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: 9" + "9" * 5000, "integer"),
    ],
)
def test_yaml_that_is_more_than_settings_is_refused_at_once(text, message):
    began = time.perf_counter()
    with pytest.raises(ValueError, match=message):
        plain_yaml(text)
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: 1\nbase: {}\nseeds: 2", "the key 'seeds' stands in line 1 and again in line 3"),
        ("rwalk:\n  delta_t: 1\n  'delta_t': 2", "the key 'delta_t' stands in line 2 and again in line 3"),
        ("runs: [{lr: 1, lr: 2}]", "the key 'lr' stands in line 1 and again in line 1"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plain_yaml(text)
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"spec.yaml is not YAML: {message}"):
        load_spec(tmp_path / "spec.yaml")


def test_aliases_as_people_use_them_work(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "base: {benchmark: split-digits}\nseeds: 1\nruns:\n  a: &a {method: rwalk, lr: 1e-2}\n"
        "  b: {<<: *a, epochs: 2}\n"
    )
    specs = load_comparison(path).specs()
    assert (specs["b"].lr, specs["b"].epochs, specs["a"].lr) == (0.01, 2, 0.01)


@pytest.mark.parametrize("changes", [{"epochs": 10**12}, {"hidden": [2**30]}, {"lr": 1e300}, {"exemplars": 2**40}])
def test_numbers_have_bounds(changes, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({"benchmark": "split-digits", "method": "rwalk", **changes}))
    with pytest.raises(ValueError, match="less than or equal to"):
        load_spec(path)


@pytest.mark.parametrize("count", [10**12, 10**5])
def test_seeds_have_a_bound(count, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"seeds": count, "base": {"benchmark": "split-digits"}, "runs": {"a": {}}}))
    with pytest.raises(ValueError, match=f"seeds={count}: expected at most 10000"):
        load_comparison(path)


@pytest.mark.parametrize("name", ["../spec", "/etc/passwd", "..", ""])
def test_a_table_is_looked_up_and_no_path(name, tmp_path):
    with pytest.raises(ValueError, match="unknown table"):
        load_table(name)


def test_messages_about_long_values_are_short_and_in_one_line(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({"benchmark": "split-digits", "method": "rwalk", "epochs": "\x1b\x07m" * 2000}))
    with pytest.raises(ValueError, match="epochs=") as caught:
        load_spec(path)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("target", "count"), [("checkpoints", 100), ("results", 100), ("specs", 60)])
def test_mutated_files_are_refused_or_what_they_were(target, count, tmp_path):
    report = hunt(target, range(count), 0, tmp_path)
    assert report.findings == []
    assert report.endings["refused"] > count / 2
