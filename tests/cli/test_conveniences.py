"""What makes the command easy: examples that work, hints, JSON, plain lines in a pipe, completion."""

import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
import typer
from rich.console import Console
from rich.table import Table

from cli.shells import open_shell, write_spec
from rwalk.cli import commands, display
from rwalk.cli.completion import SHELLS
from rwalk.cli.tuning import SEARCHES
from rwalk.cli.working import Counter
from rwalk.experiments import METHODS, RunSpec, run
from rwalk.experiments.loading import load_spec
from rwalk.experiments.pool import Outcome
from rwalk.streams import benchmarks

ROOT = typer.main.get_command(commands.app)
SUGGESTS = tuple(map(int, typer.__version__.split(".")[:2])) >= (0, 20)  # typer has it since then


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


def options_of(name):
    return {option for parameter in ROOT.commands[name].params for option in parameter.opts} | {"--help"}


@pytest.mark.parametrize("name", [None, *ROOT.commands])
def test_every_command_has_examples_whose_options_exist(name, shell):
    status, out, _ = shell(*([name] if name else []), "--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    examples = out.partition("Examples:\n")[2].partition("\n\n")[0].replace("\\\n", "")
    lines = [line.strip() for line in examples.splitlines() if line.strip().startswith("rwalk")]
    assert lines
    for line in lines:
        _, command, *words = shlex.split(line.partition(">")[0])
        if command == "COMMAND":
            continue
        assert name in (None, command)
        assert {word for word in words if word.startswith("--")} <= options_of(command)


def test_help_tells_the_exit_statuses(shell):
    out = shell("--help")[1]
    assert all(re.search(rf"\b{status}\b", out.partition("Exit status:")[2]) for status in (0, 1, 2, 130, 143))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["rn"], 2, "Did you mean 'run'?" if SUGGESTS else "No such command 'rn'."),
        (["run", "--benchmrk", "x"], 2, "--benchmark"),
        (["run", "--benchmark", "split-digits", "--method", "rwlk"], 1, "(did you mean 'rwalk'?)"),
        (["run", "--benchmark", "split-digits", "--method", "rwalk", "--model", "mpl"], 1, "(did you mean 'mlp'?)"),
        (["run", "--benchmark", "split-digits", "--method", "rwalk", "--set", "epoch=1"], 1, "mean 'epochs'?)"),
        (["run", "--benchmark", "split-digits", "--method", "rwalk", "--set", "rwalk.deltat=1"], 1, "mean 'delta_t'?)"),
        (["run", "--benchmark", "split-digits", "--method", "lwf", "--ewc-lambda", "3"], 1, "options.strength"),
        (
            ["run", "--benchmark", "split-digits", "--method", "rwalk", "--sampler", "entropy"],
            1,
            "give --exemplars too",
        ),
        (["reproduce", "eccv2018-mnist-singlhead"], 1, "(did you mean 'eccv2018-mnist-singlehead'?)"),
        (["completion", "bsh"], 1, "(did you mean 'bash'?)"),
    ],
)
def test_a_slip_is_named_with_what_was_meant_or_ignored(words, status, message, shell):
    found, out, err = shell(*words, *(["--out", "out"] if words[0] in ("run", "reproduce") else []))
    assert (found, out) == (status, "")
    assert message in err
    assert not Path("out").exists()


def test_json_is_all_there_is(shell, tmp_path):
    status, out, err = shell("list", "--json")
    assert (status, err) == (0, "")
    summaries = {name: method.summary for name, method in METHODS.items()}
    assert json.loads(out) == {"benchmarks": benchmarks(), "methods": summaries}
    spec = write_spec(tmp_path)
    status, out, err = shell("run", "--spec", spec, "--out", "out", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(Path("out/result.json").read_text())
    assert json.loads(out)["accuracy_matrix"] == run(load_spec(spec)).matrix.tolist()
    assert json.loads(shell("reproduce", "--json")[1])["eccv2018-mnist-singlehead"]


def test_a_table_has_a_frame_on_a_terminal_and_is_plain_lines_in_a_pipe(capsys):
    def shown(**options):
        table = Table(title="A title that is longer than the table", title_justify="left")
        table.add_column("")
        table.add_column("%")
        table.add_row("a name " * 20, "1.0 ± 0.5")
        display.show(Console(width=40, **options), table)
        return capsys.readouterr().out

    assert "┃" in shown(force_terminal=True)
    title, head, row = shown().splitlines()
    assert title == "A title that is longer than the table"
    assert row == "a name " * 20 + "  1.0 ± 0.5"
    assert head.strip() == "%"


def test_progress_in_a_pipe_is_a_line_now_and_then_with_the_time_that_is_left(monkeypatch, capsys):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("rwalk.cli.working.time.monotonic", lambda: float(next(clock)))
    with Counter(10) as counter:
        counter.count(Outcome("one", 0, reused=True))  # it took no time, and is no measure of what is left
        for seed in range(1, 8):
            counter.count(Outcome("one", seed, error="gone" if seed == 1 else None))
    lines = capsys.readouterr().err.splitlines()
    assert lines
    for line in lines:
        done, left, seconds = re.fullmatch(r"(\d) of 10 runs done, ((?:\d min )?(\d+) s) left, 1 failed", line).groups()
        assert left != "0 s"
    assert int(done) > 5
    assert int(seconds) < 40


ASKED = {
    "tu": "tune",
    "run --check": "--checkpoint-every",
    "run --method ewc": "ewc++",
    "sweep plan.yaml --backend d": "dask",
    "reproduce eccv2018-mnist-s": "eccv2018-mnist-singlehead",
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_options_and_names(shell):
    status, script, _ = shell("completion", "bash")
    assert status == 0
    for words, expected in ASKED.items():
        line = f'COMP_WORDS=(rwalk {words}); COMP_CWORD={len(words.split())}; _rwalk; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", f"{script}\n{line}"], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes_commands_options_and_names(shell, tmp_path):
    (tmp_path / "rwalk.fish").write_text(shell("completion", "fish")[1])
    asked = "; ".join(f"complete -C 'rwalk {words}'" for words in ASKED)
    line = ["fish", "--no-config", "-c", f"source rwalk.fish; {asked}"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(ASKED.values())


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_completes_commands_options_and_names(shell, tmp_path):
    (tmp_path / "rwalk.zsh").write_text(shell("completion", "zsh")[1])
    with on_a_terminal(["zsh", "-f", "-i"], tmp_path) as typed:
        typed("source ./rwalk.zsh; print -r DO''NE\n", "DONE")
        for words, expected in ASKED.items():
            typed(f"rwalk {words}\t", expected)
            typed("\x15", "")  # the line is empty again


@contextmanager
def on_a_terminal(command, folder):
    """What types into a shell and waits until it has written something."""
    import pty

    child, terminal = pty.fork()
    if not child:
        os.chdir(folder)
        os.execvpe(command[0], command, {**os.environ, "HOME": str(folder), "TERM": "dumb"})

    def typed(keys, expected):
        os.write(terminal, keys.encode())
        written, end = "", time.monotonic() + 120
        while expected not in written:
            ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{keys!r}: {expected!r} did not come, but {written!r}"
            written += os.read(terminal, 65536).decode(errors="replace")

    try:
        yield typed
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


def test_an_encoding_without_the_signs_of_a_table_ends_no_command(tmp_path):
    plan = "{seeds: 1, intransigence: false, base: {benchmark: split-digits, only_first: 2, epochs: 1, hidden: [4]}, "
    (tmp_path / "plan.yaml").write_text(plan + "runs: {λ: {method: fine-tuning}}}", encoding="utf-8")
    command = [sys.executable, "-c", "from rwalk.cli import main; main()", "compare", "--spec", "plan.yaml", "--jobs=1"]
    known = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    for more in (["--out", "out"], ["--out", "out", "--json"]):
        done = subprocess.run([*command, *more], cwd=tmp_path, env=known, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["rows"][0]["label"] == "λ"


@pytest.mark.parametrize("width", [40, 60, 72, 100, 200])
def test_names_and_figures_are_seen_on_a_terminal_of_any_width(width):
    out = io.StringIO()
    table = Table(title="figures")
    table.add_column("", overflow="fold", min_width=12)
    for name in ("accuracy", "forgetting", "intransigence", "learning acc."):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("a-method-with-a-name", *["12.3 ± 45.6"] * 4)
    display.show(Console(file=out, force_terminal=True, width=width, color_system=None), table)
    told = out.getvalue()
    assert told.count("12.3 ± 45.6") == 4
    assert "a-method-wit" in told
    assert ("┏" in told) == (width >= 80)


@pytest.mark.parametrize("command", ["compare", "sweep", "tune", "reproduce"])
@pytest.mark.parametrize("jobs", ["0", "-5"])
def test_a_number_of_processes_that_cannot_be_is_refused_before_anything(command, jobs, shell):
    words = {"sweep": ["plan.yaml"], "reproduce": ["eccv2018-cifar100"]}.get(command, ["--benchmark", "split-digits"])
    also = ["--method", "pi"] if command == "tune" else []
    status, out, err = shell(command, *words, *also, "--out", "out", "--jobs", jobs)
    told = f"rwalk: error: --jobs {jobs}: expected how many processes, or -1 for one per core\n"
    assert (status, out, err) == (1, "", told)
    assert list(Path().iterdir()) == []


def test_going_on_and_replacing_exclude_each_other(shell):
    spec = write_spec(Path())
    status, _, err = shell("run", "--spec", spec, "--out", "out", "--resume", "--overwrite")
    told = "--resume goes on with what --out holds, --overwrite replaces it: give one of them"
    assert (status, err) == (1, f"rwalk: error: {told}\n")
    assert not Path("out").exists()


def test_completion_offers_what_the_commands_take(shell):
    optimizers = get_args(RunSpec.model_fields["optimizer"].annotation)
    for words in (optimizers, SHELLS, SEARCHES):
        for name in ("bash", "fish"):
            assert re.search(rf"[\"']{re.escape(' '.join(words))}[\"']", shell("completion", name)[1]), (name, words)


@pytest.mark.parametrize("name", ["distributed_ddp", "distributed_fsdp", "two_tasks", "keeping"])
def test_an_example_that_does_nothing_by_itself_says_how_to_begin(name, monkeypatch, capsys):
    import runpy

    folder = Path(__file__).parents[2] / "examples"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    try:
        runpy.run_path(str(folder / f"{name}.py"), run_name="__main__")
        told = capsys.readouterr().out
    except SystemExit as end:
        told = str(end.code)
    assert "examples/" in told
    assert re.search(r"torchrun|python examples", told)
