"""The thresholds, and what a result says to them."""

import json

import pytest
from benchmarks.check import Limit, judge, load_limits, main
from benchmarks.report import ORDER


def report(ratios, **settings):
    return {"benchmark": "loop", "settings": settings, "ratios": ratios}


@pytest.fixture
def folder(tmp_path):
    """Thresholds of one ratio, and a function that writes a result."""
    (tmp_path / "limits.toml").write_text("[loop]\nmlp.ours_vs_plain.max = 1.05\n", encoding="utf-8")

    def write(ratios, **settings):
        (tmp_path / "loop.json").write_text(json.dumps(report(ratios, **settings)), encoding="utf-8")
        return main(["--results", str(tmp_path), "--thresholds", str(tmp_path / "limits.toml")])

    return write


@pytest.mark.parametrize(("value", "status"), [(1.05, 0), (1.051, 1), (float("nan"), 1)])
def test_a_ratio_passes_up_to_its_limit(folder, value, status, capsys):
    assert folder({"mlp.ours_vs_plain": value}) == status
    assert ("1 of 1 pass" if status == 0 else "0 of 1 pass") in capsys.readouterr().out


def test_a_missing_ratio_a_missing_result_and_a_trial_fail(folder, tmp_path, capsys):
    assert folder({"other": 1.0}) == 1
    assert "not in the result" in capsys.readouterr().out
    assert folder({"mlp.ours_vs_plain": 1.0}, quick=True) == 1
    assert "a --quick trial" in capsys.readouterr().out
    (tmp_path / "loop.json").unlink()
    assert main(["--results", str(tmp_path), "--thresholds", str(tmp_path / "limits.toml")]) == 1
    assert "no result" in capsys.readouterr().out


def test_limits_have_two_sides():
    decade = Limit("loop", "a", 0.85, 1.15)
    assert [judge(decade, {"loop": report({"a": value})})[1] for value in (0.8, 0.85, 1.15, 1.2)] == [
        "fail",
        "pass",
        "pass",
        "fail",
    ]
    assert (str(decade), str(Limit("loop", "a", 0.0, 0.0))) == ("≥ 0.85, ≤ 1.15", "= 0")


def test_a_threshold_that_is_neither_max_nor_min_is_refused(tmp_path):
    (tmp_path / "limits.toml").write_text("[loop]\nmlp.below = 1.0\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"loop\.mlp has 'below': expected max or min"):
        load_limits(tmp_path / "limits.toml")


def test_the_thresholds_of_the_repository_are_of_benchmarks_that_exist():
    limits = load_limits()
    assert {limit.benchmark for limit in limits} == set(ORDER)
    assert Limit("end_to_end", "accuracy_gained_high", low=0.0) in limits
    assert Limit("roofline", "fused_25m", high=1.3) in limits
