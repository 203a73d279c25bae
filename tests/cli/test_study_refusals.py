"""Studies that cannot be: one line about each, before any run."""

from pathlib import Path

import pytest

from cli.shells import COMPARISON, SWEEP, open_shell, refused

DIGITS = ["--benchmark", "split-digits"]

#: Slips of the pen.
ODD = {
    "lists.yaml": "base: {benchmark: split-digits}\ngrid: {hidden: [8, 4]}\nmethods: [pi]\n",
    "half.yaml": "seeds: 1.5\nbase: {benchmark: split-digits}\nruns: {a: {method: pi}}\n",
    "no.yaml": "base: {benchmark: split-digits}\nruns:\n  no: {method: pi}\n",
}


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["compare", "--out", "out"], "give --spec, or --benchmark and --methods"),
        (["compare", "--out", "out", *DIGITS], "give --spec, or --benchmark and --methods"),
        (["compare", "--out", "out", *DIGITS, "--methods", "walk"], "run 'walk': unknown method 'walk'"),
        (["compare", "--out", "out", *DIGITS, "--methods", "rwalk", "--against", "pi"], "against='pi': choose one"),
        (["compare", "--out", "out", *DIGITS, "--methods", "rwalk", "--exemplars", "two"], "--exemplars 'two'"),
        (["compare", "--out", "out", *DIGITS, "--methods", "rwalk", "--set", "epochs"], "--set 'epochs': expected"),
        (["compare", "--out", "out", *DIGITS, "--methods", "rwalk", "--set", "hidden=[8"], "no value that YAML knows"),
        (["compare", "--out", "out", *DIGITS, "--methods", "rwalk", "--set", "seed=3"], "seed=3: each run has every"),
        (
            ["compare", "--out", "out", *DIGITS, "--methods", "pi, rwalk,pi"],
            "--methods 'pi, rwalk,pi': pi stands there",
        ),
        (["compare", "--out", "out", *DIGITS, "--methods", "pi", "--exemplars", "2,02"], "2 stands there twice"),
        (
            ["compare", "--out", "out", *DIGITS, "--methods", "pi", "--exemplars", "²"],
            "--exemplars '²': expected whole",
        ),
        (
            ["compare", "--out", "out", *DIGITS, "--methods", "pi", "--set", "method=si"],
            "--set method=si: --methods nam",
        ),
        (["compare", "--out", "out", "--spec", "plan.yaml", "--set", "method=si"], "--set method=si: plan.yaml names"),
        (
            ["compare", "--out", "out", *DIGITS, "--methods", "pi", "--set", "benchmark=split-mnist"],
            "--set benchmark=split-mnist: --benchmark split-digits says it already: give one of them",
        ),
        (
            ["compare", "--out", "out", *DIGITS, "--methods", "pi", "--exemplars", "1,2", "--set", "exemplars=3"],
            "--set exemplars=3: --exemplars 1,2 says it already",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--set", "benchmark=permuted-digits"],
            "--set benchmark=permuted-digits: --benchmark split-digits says it already",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--set", "method=pi"],
            "--set method=pi: --method rwalk",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr=1,2", "--set", "lr=3"],
            "--set lr=3 and --grid lr=1,2: one key",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--set", "rwalk.ewc_lambda=3"],
            "--set rwalk.ewc_lambda=3: --search continual looks for it",
        ),
        (
            ["sweep", "grid.yaml", "--out", "out", "--set", "benchmark=split-mnist"],
            "grid gives benchmark=['split-digits'",
        ),
        (["sweep", "grid.yaml", "--out", "out", "--set", "rwalk.ewc_lambda=3"], "methods.rwalk gives lambda=[1, 30]"),
        (["compare", "--out", "out", "--spec", "none.yaml"], "no spec file at none.yaml"),
        (["compare", "--out", "plan.yaml/x", *DIGITS, "--methods", "rwalk"], "is a file: --out names a folder"),
        (["compare", "--out", "out", "--spec", "plan.yaml", "--methods", "pi"], "--methods pi: the runs are those of"),
        (["compare", "--out", "out", "--spec", "plan.yaml", "--exemplars", "1"], "--exemplars 1: the runs are"),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr"], "--grid 'lr': expected KEY=A,B,C"),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr=1,[2"], "no value that YAML knows"),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr=1:10"], "ranges are for --search optuna"),
        (["tune", *DIGITS, "--search=optuna", "--grid=lr=-1:2", "--method=rwalk", "--out=out"], "-1 is below 0"),
        (["compare", "--out", "out", *DIGITS, "--methods", "rwalk", "--set", "epochs=1:10"], "epochs='1:10'"),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr=0"], "lr=0"),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "rwalk.ewc_lambda=1,1.0,3"],
            "rwalk.ewc_lambda=[1, 1.0, 3]: expected different values; 1.0 is one of the others",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--search", "optuna", "--grid", "lr=1,1.0"],
            "--grid 'lr=1,1.0': expected different values; 1.0 is one of the others",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr=1", "--grid", "lr=2,3"],
            "--grid 'lr=1' and --grid 'lr=2,3' are for one key: give it once",
        ),
        (
            ["tune", *DIGITS, "--search=optuna", "--grid=lr=1", "--grid=lr=2:3", "--method=rwalk", "--out=out"],
            "--grid 'lr=1' and --grid 'lr=2:3' are for one key: give it once",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr=1", "--metric", "x"],
            "metric='x': choose",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--grid", "lr=1", "--set", "validation=0"],
            "validation=0: settings are chosen on held-out",
        ),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--keep", "3", "--set", "validation=0"],
            "validation=0: λ is chosen on held-out",
        ),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--set", "only_first=1"], "has one task here"),
        (["tune", "--out", "out", *DIGITS, "--method", "fine-tuning"], "'fine-tuning' has no strength to choose"),
        (
            ["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--search", "grd"],
            "--search grd (did you mean 'grid'?)",
        ),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--trials", "3"], "--trials: --search continual does"),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--start", "-1"], "start=-1.0: expected a number > 0"),
        (["tune", "--out", "out", *DIGITS, "--method", "rwalk", "--decay", "1.5"], "--decay 1.5: expected a number"),
        (["compare", "--out", "out", *DIGITS, "--methods", "fine-tuning", "--set", "rwalk.delta_t=3"], "none of fine"),
        (["compare", "--out", "out", "--spec", "plan.yaml", "--set", "epoch=1"], "(did you mean 'epochs'?)"),
        (["sweep", "plan.yaml", "--out", "out"], "unknown key 'against'"),
        (["sweep", "none.yaml", "--out", "out"], "no spec file at none.yaml"),
        (
            ["sweep", "lists.yaml", "--out", "out"],
            "run 'pi, hidden 8': hidden=8: expected a list, such as [8]; in a grid",
        ),
        (
            ["compare", "--spec", "half.yaml", "--out", "out"],
            "seeds=1.5: expected whole numbers in a list, or how many",
        ),
        (["compare", "--spec", "no.yaml", "--out", "out"], "runs: the name False is no text; put it in quotes"),
        (["reproduce", "everything", "--out", "out"], "unknown table 'everything': choose one of"),
        (["reproduce", "--page", "page.md", "--out", "out"], "no stored reproduction in out"),
        (["reproduce", "--quick", "--out", "out"], "--quick without a TABLE: name one, such as `rwalk reproduce "),
        (["reproduce", "--row", "x", "--out", "out"], "--row without a TABLE"),
        (["reproduce", "--seeds", "2", "--out", "out"], "--seeds without a TABLE"),
        (["reproduce", "--finished", "--out", "out"], "--finished without a TABLE"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_any_run(shell, options, message, monkeypatch):
    Path("plan.yaml").write_text(COMPARISON)
    Path("grid.yaml").write_text(SWEEP)
    for name, text in ODD.items():
        Path(name).write_text(text)
    monkeypatch.setattr("rwalk.experiments.pool.run", lambda *_, **__: pytest.fail("trained for nothing"))
    refused(shell(*options), message, holds=["grid.yaml", "plan.yaml", *ODD])
