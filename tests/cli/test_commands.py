"""The command line: what it prints and stores."""

import subprocess
import sys
from pathlib import Path

import pytest

import rwalk
from cli.shells import open_shell, write_spec
from rwalk.experiments import METHODS, RunSpec, read_result, reference_for, run
from rwalk.streams import benchmarks

#: Runs a script twice in one process: it must end with 0; what the second ends with is what the process ends with.
TWICE = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def spec(tmp_path):
    return write_spec(tmp_path)


def test_list_names_every_benchmark_and_method(shell):
    status, out, err = shell("list")
    assert (status, err) == (0, "")
    for name, summary in {**benchmarks(), **{name: method.summary for name, method in METHODS.items()}}.items():
        assert any(line.startswith(name) and summary in line for line in out.splitlines())


def test_version(shell):
    assert shell("--version") == (0, f"rwalk {rwalk.__version__}\n", "")


def test_a_run_is_stored_and_shown(shell):
    options = ["--benchmark", "split-digits", "--method", "rwalk", "--epochs", "1", "--n-experiences", "2"]
    more = [
        "--exemplars",
        "2",
        "--ewc-lambda",
        "0.5",
        "--ewc-alpha",
        "0.8",
        "--delta-t",
        "4",
        "--replay-batch-size",
        "9",
    ]
    others = ["--batch-size", "50", "--lr", "0.01", "--optimizer", "momentum", "--seed", "3", "--shuffle-classes"]
    status, out, err = shell(
        "run", *options, *more, *others, "--threads", "1", "--device", "cpu", "--out", "runs/first"
    )
    assert (status, err) == (0, "")
    stored = read_result("runs/first")
    expected = RunSpec(
        benchmark="split-digits",
        method="rwalk",
        epochs=1,
        n_experiences=2,
        exemplars=2,
        replay_batch_size=9,
        rwalk={"ewc_lambda": 0.5, "ewc_alpha": 0.8, "delta_t": 4},
        batch_size=50,
        lr=0.01,
        optimizer="momentum",
        seed=3,
        shuffle_classes=True,
    )
    assert RunSpec(**stored["config"]).rwalk_config == expected.rwalk_config
    assert {**stored["config"], "rwalk": None} == {**expected.canonical(), "rwalk": None}
    assert stored["accuracy_matrix"] == run(expected).matrix.tolist()
    for value in (*stored["accuracy_matrix"][1], stored["average_accuracy"], stored["forgetting"]):
        assert f"{100 * value:.1f}" in out
    assert "runs/first/result.json" in out
    assert sorted(path.name for path in Path("runs").rglob("*")) == ["first", "result.json"]


def test_a_run_comes_from_a_file_and_options_win(shell, spec):
    assert shell("run", "--spec", spec, "--out", "one", "--seed", "2", "--ewc-lambda", "7")[0] == 0
    config = read_result("one")["config"]
    assert (config["hidden"], config["seed"], config["epochs"]) == ([16], 2, 1)
    assert (config["rwalk"]["delta_t"], config["rwalk"]["ewc_lambda"]) == (3, 7.0)


def test_a_joint_run_gives_intransigence(shell, spec):
    assert shell("run", "--spec", spec, "--method", "joint", "--out", "joint")[0] == 0
    status, out, _ = shell("run", "--spec", spec, "--out", "mine", "--reference", "joint")
    assert status == 0
    assert "intransigence" in out
    mine, joint = read_result("mine"), read_result("joint")
    assert joint["intransigence"] is None
    expected = joint["accuracy_matrix"][1][1] - mine["accuracy_matrix"][1][1]
    assert mine["intransigence"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        ([], ["--n-experiences", "5"], True),
        (["--set", "sizes=[2,2,2,2,2]"], ["--set", "only_first=5"], True),
        ([], ["--n-experiences", "2"], False),
        ([], ["--set", "class_order=[9,8,7,6,5,4,3,2,1,0]"], False),
        ([], ["--set", "sizes=[3,3,4]"], False),
        (["--set", "only_first=2"], [], False),
    ],
)
def test_a_reference_over_the_same_stream_by_other_words_is_taken(shell, theirs, ours, same):
    short = ["--benchmark", "split-digits", "--epochs", "1", "--set", "hidden=[8]"]
    assert shell("run", *short, "--method", "joint", *theirs, "--out", "joint")[0] == 0
    status, out, err = shell("run", *short, "--method", "rwalk", *ours, "--out", "mine", "--reference", "joint")
    assert (status, "intransigence" in out, "--reference needs a run with" in err) == (0 if same else 1, same, not same)


def test_a_finished_run_is_given_the_reference_that_is_asked_for(shell, spec, tmp_path, monkeypatch):
    monkeypatch.setenv("RWALK_CACHE_DIR", str(tmp_path / "cache"))
    assert shell("run", "--spec", spec, "--method", "joint", "--out", "joint")[0] == 0
    assert shell("run", "--spec", spec, "--out", "mine")[0] == 0
    before = read_result("mine")
    monkeypatch.setattr("rwalk.cli.commands.carry_out", lambda *_, **__: pytest.fail("trained again"))
    for options, reference in (
        (["--intransigence"], list(reference_for(RunSpec(**before["config"])))),
        (["--reference", "joint"], [row[k] for k, row in enumerate(read_result("joint")["accuracy_matrix"])]),
        (["--intransigence"], [row[k] for k, row in enumerate(read_result("joint")["accuracy_matrix"])]),  # it has one
    ):
        status, out, err = shell("run", "--spec", spec, "--out", "mine", "--resume", *options)
        assert (status, err) == (0, "")
        assert "intransigence" in out
        after = read_result("mine")
        assert after["reference"] == reference
        assert after["intransigence"] == pytest.approx(reference[1] - after["accuracy_matrix"][1][1])
        changed = {"reference", "intransigence", "checksum"}
        assert {key for key in before if before[key] != after[key]} == changed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "fine-tuning"], "needs a run with method='joint', this one has 'fine-tuning'"),
        (["--method", "joint", "--n-experiences", "3"], "needs a run with n_experiences=2, this one has 3"),
    ],
)
def test_a_reference_that_is_no_joint_run_over_the_same_stream_is_refused(shell, spec, options, message):
    assert shell("run", "--spec", spec, "--out", "other", *options)[0] == 0
    status, _, err = shell("run", "--spec", spec, "--out", "mine", "--reference", "other")
    assert (status, err.count("\n")) == (1, 1)
    assert message in err
    assert not Path("mine").exists()


def test_the_installed_command_works_and_warns_of_nothing(spec, tmp_path):
    script = Path(sys.executable).with_name("rwalk")
    options = ["run", "--spec", spec, "--out", "run"]
    strict = ["-W", "error", "-W", "ignore:Implicitly cleaning up:ResourceWarning"]  # a folder of older datasets
    command = [sys.executable, *strict, "-c", TWICE, str(script), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("rwalk: error: run holds another run")
    assert read_result(tmp_path / "run")["config"]["method"] == "rwalk"
