"""Carries a spec out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from rwalk.experiments.building import build_learner, build_plugins, build_strategy, check_device
from rwalk.experiments.data import evaluated, joined, stream_of
from rwalk.experiments.methods import METHODS
from rwalk.experiments.results import Reference, RunResult
from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix
from rwalk.streams import Benchmark, Stream
from rwalk.training import BasePlugin, EvaluationPlugin

__all__ = ["on_threads", "run"]


def run(spec: RunSpec, *, plugins: Sequence[BasePlugin] = (), reference: Reference | None = None) -> RunResult:
    """Train on the spec's stream and evaluate on all that a run is judged by after each experience.

    Args:
        spec: What to run.
        plugins: Further plugins, such as a progress display.
        reference: Accuracy on each experience k of a model trained jointly on 1..k, None where it is not known.

    Raises:
        ValueError: The reference does not cover the stream, or the device is not one of this machine.
        DataUnavailableError: The benchmark's data is not to be had.
    """
    check_device(spec.device)
    data = stream_of(spec)
    if reference is not None and len(reference) != len(data.train_stream):
        raise ValueError(f"the reference has {len(reference)} accuracies for {len(data.train_stream)} experiences")
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
    evaluator, kind, judged = EvaluationPlugin(), METHODS[spec.method].data, evaluated(data)
    strategy = build_strategy(spec, data, [*build_plugins(spec), *plugins], evaluator)
    strategy.eval(judged)
    for experience in data.train_stream if kind == "new" else _with_the_past(data.train_stream):
        if kind == "joint":
            strategy.model, strategy.optimizer = build_learner(spec, data)
        strategy.train(experience)
        strategy.eval(judged)
    return evaluator.matrices[judged.name]


def _with_the_past(stream: Stream) -> Stream:
    """Experience k of the result holds all samples of experiences 1..k."""
    return Stream(stream.name, [joined(stream[: count + 1]) for count in range(len(stream))])
