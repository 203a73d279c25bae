"""What a training template costs over the loop that it replaces."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.cases import CASES, OPTIMIZERS, Case
from benchmarks.command import Result, progress, run
from benchmarks.models import size
from benchmarks.peers import avalanche_naive, why_not
from benchmarks.subjects import check_finite
from benchmarks.timing import Rounds, Visit, interleave, visit
from rwalk.streams import Stream, TensorData
from rwalk.training import Naive

PLAIN, OURS, THEIRS = "plain loop", "rwalk Naive", "Avalanche Naive"
ITERATIONS = {"mlp_270k": 60, "mlp_6m": 15, "resnet_1m": 6}
SECONDS = {"mlp_270k": 30.0, "mlp_6m": 30.0, "resnet_1m": 60.0}


def measure(quick: bool) -> Result:
    """Time an iteration of a plain loop, of rwalk's template and of Avalanche's, each over a set held in memory."""
    result = Result({"batch": 64, "optimizer": "SGD with momentum", "plugins": "a stopwatch"})
    reason = why_not("avalanche")
    if reason is not None:
        result.note(reason)
    for case in CASES:
        if case.name in ITERATIONS:
            progress(case.name)
            _measure(result, case, peers=reason is None, quick=quick)
    result.note("all train the same network with the same optimizer in turns, wherever in memory it lies")
    result.note("an epoch over the same tensors in each loop: shuffled, batches taken as each loop takes them")
    result.note("ratios are formed within a round and are medians")
    return result


def _measure(result: Result, case: Case, *, peers: bool, quick: bool) -> None:
    torch.manual_seed(0)
    model = case.build()
    optimizer = OPTIMIZERS["sgd"](model)
    samples = ITERATIONS[case.name] * case.batch_size
    x, y = torch.randn(samples, *case.shape), torch.randint(0, case.classes, (samples,))
    makers = {PLAIN: _plain, OURS: _ours, **({THEIRS: _theirs} if peers else {})}
    epochs = {name: make(model, optimizer, x, y, case.batch_size) for name, make in makers.items()}
    turns = {name: _an_iteration_of(epoch, ITERATIONS[case.name]) for name, epoch in epochs.items()}
    rounds = interleave(turns, budget=1.0 if quick else SECONDS[case.name], at_least=1 if quick else 5)
    check_finite(model)
    _write_down(result, case, size(model), rounds)


def _an_iteration_of(epoch: Visit, iterations: int) -> Visit:
    return lambda: epoch() / iterations


def _plain(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, batch_size: int) -> Visit:
    criterion = nn.CrossEntropyLoss()

    def epoch(_: int) -> None:
        order = torch.randperm(len(x))
        for start in range(0, len(x), batch_size):
            chosen = order[start : start + batch_size]
            inputs, targets = x[chosen], y[chosen]
            optimizer.zero_grad()
            criterion(model(inputs), targets).backward()
            optimizer.step()

    return visit(epoch, 1, lead_in=0)


class Stopwatch:
    """A plugin, for either template, that times each epoch: the loop itself, without what surrounds it."""

    supports_distributed = True
    seconds = 0.0
    _began = 0.0

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Start."""
        self._began = time.perf_counter()

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Stop."""
        self.seconds = time.perf_counter() - self._began


def _ours(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, batch_size: int) -> Visit:
    watch = Stopwatch()
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=batch_size, plugins=[watch])
    return _epochs(strategy, Stream("train", [TensorData(x, y)])[0], watch)


def _theirs(model: nn.Module, optimizer: Optimizer, x: Tensor, y: Tensor, batch_size: int) -> Visit:
    from avalanche.benchmarks import tensors_benchmark

    watch = Stopwatch()
    streams = {"train_tensors": [(x, y)], "test_tensors": [(x[:1], y[:1])], "task_labels": [0]}
    strategy = avalanche_naive(model, optimizer, train_mb_size=batch_size, plugins=[watch])
    return _epochs(strategy, tensors_benchmark(**streams).train_stream[0], watch)


def _epochs(strategy: Any, experience: Any, watch: Stopwatch) -> Visit:
    def turn() -> float:
        strategy.train(experience)
        return watch.seconds

    return turn


def _write_down(result: Result, case: Case, parameters: int, rounds: Rounds) -> None:
    for name in rounds[0]:
        found = rounds.summary(lambda seconds, name=name: 1e3 * seconds[name])
        row = {"case": case.name, "parameters": parameters, "loop": name, "rounds": len(rounds)}
        row |= {"iteration_ms": found.median, "q1_ms": found.q1, "q3_ms": found.q3}
        row["vs_plain"] = rounds.summary(lambda seconds, name=name: seconds[name] / seconds[PLAIN]).median
        result.rows.append(row)
    result.ratios[f"{case.name}.rwalk_vs_plain"] = _ratio(rounds, OURS, PLAIN)
    if THEIRS in rounds[0]:
        result.ratios[f"{case.name}.avalanche_vs_plain"] = _ratio(rounds, THEIRS, PLAIN)
        result.ratios[f"{case.name}.rwalk_vs_avalanche"] = _ratio(rounds, OURS, THEIRS)


def _ratio(rounds: Rounds, above: str, below: str) -> float:
    return rounds.summary(lambda seconds: seconds[above] / seconds[below]).median


if __name__ == "__main__":
    run("loop_overhead", measure)
