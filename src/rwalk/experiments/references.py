"""The reference of intransigence: a model trained jointly on tasks 1..k, trained once and kept."""

from __future__ import annotations

import json
import logging
import os
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from rwalk.errors import CheckpointError
from rwalk.experiments.data import evaluated, fingerprint, so_far, stream_of
from rwalk.experiments.results import Reference, checksum, read_json, set_aside, versions, write_json
from rwalk.experiments.runner import accuracies, build_strategy, check_device, on_threads
from rwalk.experiments.spec import RunSpec
from rwalk.models.registry import find_builder

__all__ = ["Reference", "last_reference", "reference_folder", "reference_for", "reference_key", "reference_spec"]

log = logging.getLogger(__name__)

#: Changes whenever the same spec would train another reference than before.
REVISION = 2  # 1: without a checksum
SEED = 0


def reference_for(spec: RunSpec, *, folder: Path | None = None) -> Reference:
    """Accuracy :math:`a^*_k` on each task k of a model trained jointly on tasks 1..k.

    A task is an experience; in a task-free stream, a group of classes that is tested (see ``Stream``).

    Args:
        spec: Any run on the stream. Method, exemplars and (unless it draws the stream) seed make no difference, so that
            methods and seeds share the reference.
        folder: Where references are kept; ``reference_folder()`` if None. One that is there is not trained again, and
            of several processes that need it one trains it while the others wait.

    Raises:
        ValueError: The spec's device is not one of this machine.
        DataUnavailableError: The benchmark's data is not to be had.
    """
    return tuple(_kept(spec, k, folder) for k in range(1, _tasks(spec) + 1))


def last_reference(spec: RunSpec, *, folder: Path | None = None) -> Reference:
    """As ``reference_for``, but only for the last task, which is all that intransigence at the end needs."""
    count = _tasks(spec)
    return (*[None] * (count - 1), _kept(spec, count, folder))


def reference_folder() -> Path:
    """``references`` under ``$RWALK_CACHE_DIR``, or under ``~/.cache/rwalk``."""
    root = os.environ.get("RWALK_CACHE_DIR")
    return (Path(root) if root else Path.home() / ".cache" / "rwalk") / "references"


def reference_spec(spec: RunSpec) -> RunSpec:
    """What of a spec determines its reference."""
    shared: dict[str, Any] = {
        "method": "joint",
        "rwalk": {},
        "options": {},
        "sampler": "uniform",
        "sampler_layer": None,
    }
    unused: dict[str, Any] = {
        "average_weights": False,
        "classifier": "output",
        "exemplars": 0,
        "exemplars_total": None,
        "replay_batch_size": None,
        "reset_optimizer": False,
        "test_ahead": True,
    }
    seed = spec.seed if spec.shuffle_classes else SEED
    hidden = spec.hidden if spec.model == "mlp" else RunSpec.model_fields["hidden"].default
    return spec.model_copy(update={**shared, **unused, "seed": seed, "hidden": hidden})


def reference_key(spec: RunSpec, k: int) -> str:
    """Names all that determines the reference on task k: settings, data, a network's own code, and what computes."""
    shared = reference_spec(spec)
    data = stream_of(shared)
    determined: dict[str, Any] = {
        "config": shared.canonical(),
        "tasks": k,
        "data": [fingerprint(data.train_stream), fingerprint(evaluated(data))],
        "network": _source(shared.model),
        "torch": torch.__version__,
        "revision": REVISION,
    }
    return blake2b(json.dumps(determined, sort_keys=True).encode(), digest_size=12).hexdigest()


def _tasks(spec: RunSpec) -> int:
    return len(evaluated(stream_of(spec)))


def _kept(spec: RunSpec, k: int, folder: Path | None) -> float:
    folder, shared = reference_folder() if folder is None else folder, reference_spec(spec)
    key = reference_key(spec, k)
    target = folder / f"{key}.json"
    found = _read(target, k)
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            found = _read(target, k, set_broken_aside=True)
            if found is None:
                found = _trained(shared, k)
                about = {"config": shared.canonical(), "tasks": k, "versions": versions()}
                content = {"accuracy": found, **about}
                write_json({**content, "checksum": checksum(content)}, target)
    return found


def _read(file: Path, k: int, *, set_broken_aside: bool = False) -> float | None:
    """The accuracy that a file holds, None if it is to be measured: it is not there, or is not as it was written."""
    if not file.exists():
        return None
    try:
        content = read_json(file)
        accuracy, whole = content.get("accuracy"), "checksum" in content and content.get("tasks") == k
        if not whole or not isinstance(accuracy, float) or not 0.0 <= accuracy <= 1.0:
            raise CheckpointError(f"{file} is damaged: it holds no accuracy of {k} tasks")
    except (CheckpointError, IsADirectoryError) as error:
        if set_broken_aside:
            log.warning("%s", set_aside(file, error))
        return None
    return accuracy


def _source(model: str) -> str | None:
    """The file that a user's network comes from, which may change while its import path does not."""
    module, colon, _ = model.partition(":")
    if not colon:
        return None
    find_builder(model)
    file = getattr(sys.modules[module], "__file__", None)
    return None if file is None else blake2b(Path(file).read_bytes(), digest_size=12).hexdigest()


def _trained(shared: RunSpec, k: int) -> float:
    """Train on tasks 1..k from fresh weights; accuracy on task k."""
    check_device(shared.device)
    data = stream_of(shared)
    with on_threads(shared.threads):
        torch.manual_seed(SEED)
        strategy = build_strategy(shared, data, [])
        strategy.train(so_far(data, evaluated(data).milestones[k - 1]))
        (accuracy,) = accuracies(strategy, evaluated(data)[k - 1 : k])
    return accuracy
