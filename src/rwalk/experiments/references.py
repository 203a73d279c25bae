"""The reference of intransigence: a model trained jointly on experiences 1..k, trained once and kept."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from rwalk.experiments.building import build_strategy, check_device
from rwalk.experiments.data import evaluated, fingerprint, joined, stream_of
from rwalk.experiments.results import Reference, versions
from rwalk.experiments.runner import on_threads
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.store import write_json
from rwalk.streams import Stream
from rwalk.training import EvaluationPlugin

__all__ = ["Reference", "last_reference", "reference_folder", "reference_for", "reference_spec"]

#: Changes whenever the same spec would train another reference than before.
REVISION = 1
SEED = 0


def reference_for(spec: RunSpec, *, folder: Path | None = None) -> Reference:
    """Accuracy :math:`a^*_k` on each experience k of a model trained jointly on experiences 1..k.

    Args:
        spec: Any run on the stream. Method, exemplars and (unless it draws the stream) seed make no difference, so that
            methods and seeds share the reference.
        folder: Where references are kept; ``reference_folder()`` if None. One that is there is not trained again, and
            of several processes that need it one trains it while the others wait.

    Raises:
        ValueError: The spec's device is not one of this machine.
        DataUnavailableError: The benchmark's data is not to be had.
    """
    count = len(stream_of(spec).train_stream)
    return tuple(_kept(spec, k, folder) for k in range(1, count + 1))


def last_reference(spec: RunSpec, *, folder: Path | None = None) -> Reference:
    """As ``reference_for``, but only for the last experience, which is all that intransigence at the end needs."""
    count = len(stream_of(spec).train_stream)
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
    unused: dict[str, Any] = {"exemplars": 0, "exemplars_total": None, "replay_batch_size": None}
    seed = spec.seed if spec.shuffle_classes else SEED
    return spec.model_copy(update={**shared, **unused, "seed": seed})


def _kept(spec: RunSpec, k: int, folder: Path | None) -> float:
    folder, shared = reference_folder() if folder is None else folder, reference_spec(spec)
    key = _key(shared, k)
    target = folder / f"{key}.json"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            if not target.is_file():
                accuracy = _trained(shared, k)
                about = {"config": shared.canonical(), "experiences": k, "versions": versions()}
                write_json({"accuracy": accuracy, **about}, target)
    return float(json.loads(target.read_text(encoding="utf-8"))["accuracy"])


def _key(shared: RunSpec, k: int) -> str:
    """Names all that determines the accuracy: settings, data, and what computes."""
    data = stream_of(shared)
    determined: dict[str, Any] = {
        "config": shared.canonical(),
        "experiences": k,
        "data": [fingerprint(data.train_stream), fingerprint(evaluated(data))],
        "torch": torch.__version__,
        "revision": REVISION,
    }
    return blake2b(json.dumps(determined, sort_keys=True).encode(), digest_size=12).hexdigest()


def _trained(shared: RunSpec, k: int) -> float:
    """Train on experiences 1..k from fresh weights; accuracy on experience k."""
    check_device(shared.device)
    data = stream_of(shared)
    judged = evaluated(data)
    with on_threads(shared.threads):
        torch.manual_seed(SEED)
        evaluator = EvaluationPlugin()
        strategy = build_strategy(shared, data, [], evaluator)
        strategy.train(Stream("train", [joined(data.train_stream[:k])]))
        metrics = strategy.eval(judged[k - 1])
    return float(metrics[f"Top1_Acc_Stream/eval_phase/{judged.name}_stream"])
