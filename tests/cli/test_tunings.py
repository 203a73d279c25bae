"""``rwalk tune``: what it searches, chooses, stores and shows."""

import json
import shlex
from pathlib import Path

import pytest

from cli.shells import DIGITS, SHORT, fits_a_terminal, open_studies
from rwalk.experiments.holding import held
from rwalk.report import collect
from rwalk.report.formats import as_markdown

TINY = ["--method", "rwalk", "--set", "only_first=3", "--set", "epochs=1", "--set", "hidden=[8]", "--seeds", "2"]


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_studies(tmp_path, monkeypatch, capsys)


def test_the_best_of_a_grid_is_named_and_the_others_are_compared_with_it(shell):
    grid = ["--grid", "lr=1e-4,1e-2", "--grid", "hidden=[4],[16]"]
    status, out, err = shell("tune", *DIGITS, "--method", "fine-tuning", *grid, "--out", "out", "--jobs", "1",
                             "--set", "epochs=2", "--set", "n_experiences=2", "--seeds", "2",
                             "--metric", "learning_accuracy")  # fmt: skip
    assert (status, err) == (0, "")
    stored = json.loads(Path("out/tuning.json").read_text())
    means = {row["label"]: row["mean"]["learning_accuracy"] for row in stored["rows"]}
    assert len(means) == 4
    fits_a_terminal(out, stored)
    assert stored["metric"] == "learning_accuracy"
    assert means[stored["best"]] == max(means.values())
    assert f"best: {stored['best']}" in out
    lr, hidden = stored["best"].removeprefix("lr=").split(", hidden=")
    assert stored["chosen"] == {"lr": float(lr), "hidden": json.loads(hidden)}
    assert (stored["search"], stored["cost"]["runs"]) == ("grid", 8)
    assert f"Less {stored['best']}" in out
    for row in stored["rows"]:
        assert row["config"]["validation"] == 0.1
        if row["label"] == stored["best"]:
            assert row["differences"] == {}
        else:
            found = row["differences"]["learning_accuracy"]["mean"]
            assert found == pytest.approx(means[row["label"]] - means[stored["best"]])


def test_lambda_is_chosen_task_by_task_where_there_is_no_grid(shell):
    options = [*DIGITS, "--method", "rwalk", "--set", "epochs=1", "--set", "hidden=[8]", "--jobs", "1"]
    search = ["--seeds", "2", "--start", "2", "--tolerance", "0.9", "--out", "out"]
    status, out, err = shell("tune", *options, *search)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    stored = json.loads(Path("out/tuning.json").read_text())
    last = sorted(found["strengths"][-1] for found in stored["searches"].values())
    assert stored["chosen"] == {"rwalk.ewc_lambda": pytest.approx(sum(last) / 2, rel=1e-2)}
    assert f"best: {stored['best']}" in out
    trainings = sum(found["trainings"] for found in stored["searches"].values())
    assert (stored["cost"]["trainings"], stored["cost"]["runs"]) == (trainings, trainings / 5)
    status, out, _ = shell("tune", *options, *search, "--json")
    assert json.loads(out)["searches"] == stored["searches"]  # not searched again


def test_a_search_task_by_task_leaves_a_folder_in_use_alone(shell):
    with held(Path("used")):
        status, _, err = shell("tune", *DIGITS, "--method", "rwalk", *SHORT, "--out", "used")
        assert status == 1
        assert "used is in use by process" in err
        assert not Path("used/tuning.json").exists()


def test_optuna_suggests_and_what_it_suggested_is_not_run_again(shell):
    pytest.importorskip("optuna")
    options = [*DIGITS, "--method", "rwalk", "--search", "optuna", "--grid", "rwalk.ewc_lambda=0.1:100", *SHORT]
    status, out, err = shell("tune", *options, "--trials", "5", "--seeds", "1", "--out", "out", "--json")
    assert (status, err) == (0, "")
    stored = json.loads(out)
    strengths = [row["config"]["rwalk"]["ewc_lambda"] for row in stored["rows"]]
    assert len(set(strengths)) == 5
    assert all(0.1 <= strength <= 100 for strength in strengths)
    assert stored["best"] == f"rwalk.ewc_lambda={stored['chosen']['rwalk.ewc_lambda']}"
    again = json.loads(shell("tune", *options, "--trials", "5", "--seeds", "1", "--out", "out", "--json")[1])
    assert (again["rows"], again["cost"]["reused"]) == (stored["rows"], 5)


def test_one_value_of_a_grid_is_chosen_and_stored_as_such(shell):
    status, _, _ = shell("tune", *DIGITS, *TINY, "--grid", "rwalk.ewc_lambda=3", "--jobs", "1", "--out", "out")
    assert status == 0
    assert json.loads(Path("out/tuning.json").read_text())["chosen"] == {"rwalk.ewc_lambda": 3.0}


@pytest.mark.parametrize(
    "asked",
    [
        ["--keep", "3", "--start", "20", "--end", "2", "--decay", "0.2", "--tolerance", "0.4"],
        ["--search", "continual", "--start", "2", "--tolerance", "0.9", "--decay", "0.3"],
        ["--grid", "rwalk.ewc_lambda=1,3", "--grid", "heads=single,masked", "--metric", "backward_transfer"],
        ["--search", "optuna", "--grid", "rwalk.ewc_lambda=0.1:100", "--trials", "2", "--metric", "learning_accuracy"],
    ],
    ids=["race", "continual", "grid", "optuna"],
)
def test_the_command_on_the_page_of_a_tuning_searches_the_same_again(shell, asked):
    if "optuna" in asked:
        pytest.importorskip("optuna")
    status, _, err = shell("tune", *DIGITS, *TINY, *asked, "--jobs", "1", "--out", "out")
    assert (status, err) == (0, "")
    before = json.loads(Path("out/tuning.json").read_text())
    (command,) = collect([Path("out")]).commands
    assert shell(*shlex.split(command)[1:], "--jobs", "1")[0] == 0
    after = json.loads(Path("out/tuning.json").read_text())
    for key in ("searches", "rows", "chosen", "metric", "search"):
        assert after.get(key) == before.get(key)
    assert after["plan"] == {**before["plan"], "base": after["plan"]["base"]}
    assert "searches" in after or after["cost"]["reused"] == after["cost"]["runs"] == len(before["rows"]) * 2
    assert "searches" not in after or len(list(Path("out/runs").iterdir())) == 2  # found, not searched anew


def test_a_tuning_by_any_metric_stores_and_shows_it(shell):
    grid = ["--grid", "rwalk.ewc_lambda=1,300", "--metric", "backward_transfer"]
    status, out, err = shell("tune", *DIGITS, *TINY, *grid, "--jobs", "1", "--out", "out")
    assert (status, err) == (0, "")
    stored = json.loads(Path("out/tuning.json").read_text())
    means = {row["label"]: row["mean"]["backward_transfer"] for row in stored["rows"]}
    assert means[stored["best"]] == max(means.values())
    assert "bwd. transfer" in out
    page = as_markdown(collect([Path("out")]))
    said = f"{100 * means[stored['best']]:.1f} % backward transfer on held-out data"
    assert page.startswith(f"# λ={stored['best'].partition('=')[2]} is chosen: {said}")
    assert "| learning accuracy | backward transfer | seeds |" in page
