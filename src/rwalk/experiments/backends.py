"""Who carries runs out: processes of this machine, or workers of a Ray or Dask cluster, by joblib's own backends."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rwalk.errors import MissingExtraError, RWalkError, closest

__all__ = ["BACKENDS", "LOCAL", "Workers", "cluster", "lost_worker"]

BACKENDS = ("local", "ray", "dask")
#: What workers of a cluster are told of this process's surroundings.
SURROUNDINGS = ("RWALK_DATA_DIR", "RWALK_CACHE_DIR")
#: How often a piece of work whose worker died is begun again by the cluster itself; then it is tried alone, once.
RETRIES = 2


@dataclass(frozen=True)
class Workers:
    """Who works. ``cluster`` gives one inside which joblib hands work to it."""

    backend: str = "local"

    def parent(self) -> int | None:
        """The process that workers end with; None where they have a life of their own."""
        return os.getpid() if self.backend == "local" else None

    def surroundings(self) -> dict[str, str]:
        """What a worker elsewhere has to know to find the same files."""
        if self.backend == "local":
            return {}
        return {"PWD": str(Path.cwd()), **{name: os.environ[name] for name in SURROUNDINGS if name in os.environ}}


LOCAL = Workers()


@contextmanager
def cluster(backend: str = "local", address: str | None = None, *, jobs: int = -1) -> Iterator[Workers]:
    """Inside, ``run_all(..., workers=...)`` works there.

    Args:
        backend: ``"local"``, ``"ray"`` or ``"dask"``.
        address: Of the cluster. None takes the one that the environment names (``RAY_ADDRESS``,
            ``DASK_SCHEDULER_ADDRESS``), else begins one on this machine that ends with the block.
        jobs: Workers of a cluster that is begun here.

    Raises:
        ValueError: An unknown backend, or an address with ``"local"``.
        MissingExtraError: Ray or Dask is not installed.
        RWalkError: There is no cluster at the address.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}{closest(backend, BACKENDS)}: choose one of {', '.join(BACKENDS)}")
    if backend == "local":
        if address is not None:
            raise ValueError(f"address={address!r}: processes of this machine have none; choose ray or dask")
        yield LOCAL
        return
    needs, begin = {"ray": ("ray", _ray), "dask": ("distributed", _dask)}[backend]
    if find_spec(needs) is None:
        raise MissingExtraError(f"backend {backend!r}", backend, ImportError(name=needs))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with begin(address, jobs):
        _restore(handlers)
        yield Workers(backend)


def lost_worker(error: Exception) -> bool:
    """Whether this tells that a process died, and nothing of the work itself."""
    kinds: list[Any] = [BrokenProcessPool]
    if "ray.exceptions" in sys.modules:
        kinds += [sys.modules["ray.exceptions"].RayError]
    if "distributed" in sys.modules:
        for module, name in (("scheduler", "KilledWorker"), ("client", "FutureCancelledError")):
            kinds.append(getattr(sys.modules[f"distributed.{module}"], name))
    return isinstance(error, tuple(kinds))


@contextmanager
def _ray(address: str | None, jobs: int) -> Iterator[None]:
    from joblib import parallel_config, register_parallel_backend

    ray: Any = import_module("ray")
    mine = not ray.is_initialized()
    if mine:
        known = address or os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {} if known else {"num_cpus": None if jobs < 1 else jobs, "include_dashboard": False}
        try:
            ray.init(address=known, log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RWalkError(f"no Ray cluster at {known or 'this machine'}: {str(error).splitlines()[0]}") from None
    register_parallel_backend("ray", _streaming(import_module("ray.util.joblib.ray_backend").RayBackend))
    try:
        with parallel_config("ray", ray_remote_args={"max_restarts": -1, "max_task_retries": RETRIES}):
            yield
    finally:
        if mine:
            ray.shutdown()


def _streaming(backend: type) -> type:
    """Ray's backend, giving results as they come: its pool calls back from a thread of each result.

    It inherits the refusal from joblib's backend of multiprocessing, whose pool has one thread for all of them.
    """
    return type("StreamingRay", (backend,), {"supports_return_generator": True})


@contextmanager
def _dask(address: str | None, jobs: int) -> Iterator[None]:
    from joblib import parallel_config

    distributed: Any = import_module("distributed")
    known = address or import_module("dask").config.get("scheduler-address", None)
    try:
        if known:
            here, client = None, distributed.Client(known, timeout=10)
        else:
            workers = jobs if jobs > 0 else os.cpu_count()
            here = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
            client = distributed.Client(here)
    except (OSError, TimeoutError) as error:
        raise RWalkError(f"no Dask scheduler at {known}: {str(error).splitlines()[0]}") from None
    try:
        with client, parallel_config("dask"):
            yield
    finally:
        if here is not None:
            here.close()


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    """Signals are the command's, whatever a library has made of them."""
    for number, handler in handlers.items():
        with suppress(ValueError):  # another thread than the main one
            signal.signal(number, handler)
