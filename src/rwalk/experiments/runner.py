"""Carries a spec out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rwalk.experiments.building import build_learner, build_plugins, build_strategy, check_device
from rwalk.experiments.data import ends, evaluated, so_far, stream_of
from rwalk.experiments.methods import METHODS
from rwalk.experiments.results import Reference, RunResult
from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix
from rwalk.streams import Benchmark, Experience
from rwalk.training import BasePlugin, BaseTemplate

__all__ = ["accuracies", "on_threads", "run"]


def run(spec: RunSpec, *, plugins: Sequence[BasePlugin] = (), reference: Reference | None = None) -> RunResult:
    """Train on the spec's stream and evaluate on all that a run is judged by after each task.

    A task is an experience; in a task-free stream, a group of classes that is tested (see ``data.ends``).

    Args:
        spec: What to run.
        plugins: Further plugins, such as a progress display.
        reference: Accuracy on each task k of a model trained jointly on 1..k, None where it is not known.

    Raises:
        ValueError: The reference does not cover the stream, or the device is not one of this machine.
        DataUnavailableError: The benchmark's data is not to be had.
    """
    check_device(spec.device)
    data = stream_of(spec)
    tasks = len(evaluated(data))
    if reference is not None and len(reference) != tasks:
        raise ValueError(f"the reference has {len(reference)} accuracies for {tasks} experiences")
    with on_threads(spec.threads):
        began = time.perf_counter()
        matrix = _learn(spec, data, plugins)
        seconds = time.perf_counter() - began
    return RunResult(spec, matrix, seconds, None if reference is None else tuple(reference))


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """So many threads of the CPU, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _learn(spec: RunSpec, data: Benchmark, plugins: Sequence[BasePlugin]) -> AccuracyMatrix:
    """Go through the stream; the accuracy matrix."""
    torch.manual_seed(spec.seed)
    judged, source, began = evaluated(data), METHODS[spec.method].data, 0
    strategy = build_strategy(spec, data, [*build_plugins(spec), *plugins])
    matrix = AccuracyMatrix(len(judged))
    matrix.record(-1, accuracies(strategy, judged))
    for task, end in enumerate(ends(data)):
        if source == "joint":
            strategy.model, strategy.optimizer = build_learner(spec, data)
        if source == "new":
            for experience in data.train_stream[began:end]:
                strategy.train(experience)
        else:
            strategy.train(so_far(data, end))
        matrix.record(task, accuracies(strategy, judged))
        began = end
    return matrix


def accuracies(strategy: BaseTemplate, judged: Sequence[Experience]) -> list[float]:
    """The model's accuracy on each of some experiences."""
    metrics = strategy.eval(judged)
    places = (
        f"{experience.origin_stream.name}_stream/Task{experience.task_label:03d}/Exp{experience.current_experience:03d}"
        for experience in judged
    )
    return [float(metrics[f"Top1_Acc_Exp/eval_phase/{place}"]) for place in places]
