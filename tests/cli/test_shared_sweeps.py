"""Two commands that sweep in one folder at the same time: all runs are there, each carried out once."""

import csv
import json
import os
import subprocess
import sys

from rwalk.experiments.index import RunIndex
from rwalk.experiments.results import RESULT

PLAN = """\
seeds: 3
base: {benchmark: split-digits, epochs: 2, n_experiences: 2, hidden: [16]}
methods:
  fine-tuning: {}
  rwalk: {lambda: [1, 10, 100]}
"""
COMMAND = "import sys; from rwalk.cli import main; sys.argv[0] = 'rwalk'; main()"


def test_all_runs_are_there_and_each_once(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)
    words = [sys.executable, "-c", COMMAND, "sweep", "plan.yaml", "--out", "out", "--jobs", "1", "--json"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(words, cwd=tmp_path, env=surroundings, **pipes) for _ in range(2)]
    told = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    tables = [{row["run"]: row["seconds"] for row in json.loads(out)} for out, _ in told]
    assert tables[0] == tables[1]  # a run carried out twice would have taken other seconds
    assert len(tables[0]) == 12
    results = sorted((tmp_path / "out" / "runs").rglob("*.json"))
    assert [path.name for path in results] == [RESULT] * 12
    assert {path.parent.name for path in results} == set(tables[0])
    with RunIndex(tmp_path / "out") as index:
        assert sorted((row["id"], row["status"]) for row in index.rows()) == [
            (name, "finished") for name in sorted(tables[0])
        ]
    with (tmp_path / "out" / "results.csv").open() as table:
        assert sorted(row["run"] for row in csv.DictReader(table)) == sorted(tables[0])
