"""Work that goes to a cluster: real Dask workers in this process; what there is none of is named."""

import importlib.util
import os
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from experiments.small import small
from rwalk.errors import MissingExtraError, RWalkError
from rwalk.experiments import pool, run, run_all
from rwalk.experiments.backends import LOCAL, Workers, cluster, lost_worker
from rwalk.experiments.pool import LOG, Outcome, Work


@pytest.mark.parametrize(
    ("backend", "address", "message"),
    [
        ("dsk", None, "backend='dsk' (did you mean 'dask'?): choose one of local, ray, dask"),
        ("local", "auto", "address='auto': processes of this machine have none"),
    ],
)
def test_what_is_no_cluster_is_refused(backend, address, message):
    with pytest.raises(ValueError, match=r".") as caught, cluster(backend, address):
        pass
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_missing_package_is_named(backend, package, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("rwalk.experiments.backends.find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MissingExtraError, match=rf"needs {package}; .*rwalk\[{backend}\]"), cluster(backend):
        pass


def test_a_failure_of_the_work_is_no_lost_worker():
    assert not lost_worker(ValueError("of the work"))
    assert LOCAL.surroundings() == {}


def test_a_worker_that_died_is_told_from_a_failure_of_the_work():
    scheduler = pytest.importorskip("distributed.scheduler")
    assert lost_worker(scheduler.KilledWorker("run", None, 3))
    assert lost_worker(BrokenProcessPool("a process died"))


def test_a_result_from_another_disk_is_written_here(tmp_path):
    result = run(small(epochs=1))
    sent = Work("one", result.spec, tmp_path / "run", parent=None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOG).write_text("of the try before")
    outcome = Outcome("one", 0, result, folder=sent.folder)
    assert pool._kept(sent, outcome) is outcome
    assert sent.found().result.matrix.tolist() == result.matrix.tolist()
    assert not (tmp_path / "run" / LOG).exists()
    here = Work("two", result.spec, tmp_path / "own")  # this machine's processes write it themselves
    pool._kept(here, outcome)
    assert not (tmp_path / "own").exists()


def test_a_worker_elsewhere_looks_for_files_where_the_command_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RWALK_DATA_DIR", "/data/of/the/command")
    monkeypatch.delenv("RWALK_CACHE_DIR", raising=False)
    told = Workers("ray").surroundings()
    assert told == {"PWD": str(tmp_path), "RWALK_DATA_DIR": "/data/of/the/command"}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("RWALK_DATA_DIR", "/data/of/the/worker")
    pool._as_there({**told, "RWALK_CACHE_DIR": "/cache"})
    assert Path.cwd() == tmp_path
    assert os.environ["RWALK_DATA_DIR"] == "/data/of/the/worker"  # its own wins
    assert os.environ["RWALK_CACHE_DIR"] == "/cache"
    pool._as_there({"PWD": str(tmp_path / "only there")})
    assert Path.cwd() == tmp_path


def test_runs_on_dask_are_the_runs_of_this_machine(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    specs = {"ours": small(), "fails": small(model="experiments.networks:failing", model_options={"seed": 1})}
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ports, of other packages
        here = distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None)
        with here, cluster("dask", here.scheduler_address) as workers:
            found = list(run_all(specs, [0, 1], folder=tmp_path / "runs", workers=workers))
            again = list(run_all(specs, [0, 1], folder=tmp_path / "runs", workers=workers))
    alone = {(o.label, o.seed): o for o in run_all(specs, [0, 1], jobs=1)}
    assert {(o.label, o.seed): o.error for o in found} == {key: o.error for key, o in alone.items()}
    for outcome in found:
        if outcome.result is not None:  # several threads of one worker do not disturb each other's random numbers
            assert outcome.result.matrix.tolist() == alone[outcome.label, outcome.seed].result.matrix.tolist()
    assert sorted(o.reused for o in again) == [False, True, True, True]  # what failed is tried again


def test_no_scheduler_is_named_in_one_line(monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refused(*_, **__):
        raise OSError("Timed out\nand more")

    monkeypatch.setattr(distributed, "Client", refused)
    message = r"^no Dask scheduler at tcp://nowhere:1: Timed out$"
    with pytest.raises(RWalkError, match=message), cluster("dask", "tcp://nowhere:1"):
        pass
