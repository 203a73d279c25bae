r"""One λ for a stream, found while it comes: several learn it side by side, and those that fall behind drop out.

After each task a λ is judged by its mean accuracy over the tasks so far: on the held-out data of this one, and on a few
held-out samples of each past class that are kept for it, beside the exemplars. So what is gained on the new task is
weighed against what is lost of the old ones. No later task, no test data, and nothing more of earlier tasks.

References:
    Maron and Moore, *Hoeffding races: accelerating model selection search for classification and function
    approximation*, NeurIPS 1993.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch

from rwalk.experiments.data import stream_of
from rwalk.experiments.plasticity import begun, searchable, set_strength
from rwalk.experiments.runner import accuracies, on_threads
from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix
from rwalk.random_state import random_state, set_random_state
from rwalk.streams import Experience, labels_of
from rwalk.streams.in_memory import select
from rwalk.training import Naive

__all__ = ["CLOSE", "Race", "Raced", "in_front", "kept_of", "raced"]

#: Mean accuracy by which two λ may differ and still count as equally good.
CLOSE = 0.01


#: More than this many λ are a slip: each is a copy of the run.
MOST = 50


@dataclass(frozen=True)
class Race:
    """Which λ start, and how they are judged.

    Attributes:
        keep: Held-out samples of each past class that are kept to judge by.
        start: The strongest λ.
        end: The weakest.
        factor: From one to the next.
        tolerance: How far a λ may be behind the best one, in mean accuracy over the tasks so far (a fraction, mean over
            the tasks after which it was judged); one that is further behind drops out.
    """

    keep: int
    start: float = 1e5
    end: float = 0.1
    factor: float = 10.0**-0.5
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep={self.keep!r}: expected at least 1 held-out sample of each past class")
        if not 0.0 < self.start < math.inf:
            raise ValueError(f"start={self.start!r}: expected a number > 0")
        if not 0.0 < self.end <= self.start:
            raise ValueError(f"end={self.end!r}: expected a number above 0, and at most start={self.start!r}")
        if not 0.0 < self.factor < 1.0:
            raise ValueError(f"factor={self.factor!r}: expected a number between 0 and 1")
        if not 0.0 <= self.tolerance < 1.0:
            raise ValueError(f"tolerance={self.tolerance!r}: expected a share, at least 0 and below 1")
        if self._count > MOST:
            raise ValueError(
                f"start={self.start:g}, end={self.end:g} and factor={self.factor:g} are {self._count} λ: expected at "
                f"most {MOST}, as each is a copy of the run; take larger steps, or ends that are nearer"
            )

    @property
    def strengths(self) -> tuple[float, ...]:
        """All λ that start, the strongest first, to three digits."""
        return tuple(float(f"{self.start * self.factor**index:.3g}") for index in range(self._count))

    @property
    def _count(self) -> int:
        return 1 + math.floor(math.log(self.end / self.start) / math.log(self.factor) + 1e-9)


@dataclass(frozen=True)
class Raced:
    """What was found on one stream.

    Attributes:
        trials: For each task, pairs of λ and mean accuracy over the tasks so far, as they are judged.
        trainings: How often a task was trained on; a run without a search would have done so once a task.
        matrix: Accuracy on the held-out data of all tasks, of the λ in front at the end; no part of the choice.
        seconds: Wall time.
    """

    trials: tuple[tuple[tuple[float, float], ...], ...]
    trainings: int
    matrix: AccuracyMatrix
    seconds: float


@dataclass
class _Runner:
    """A λ on its way: what has learned under it, and where its random numbers are."""

    strategy: Naive
    state: dict[str, Any]
    matrix: AccuracyMatrix


def raced(spec: RunSpec, how: Race) -> Raced:
    """Learn a stream under several λ.

    Args:
        spec: What to run, with ``validation`` > 0; its own λ is not read.
        how: The race.

    Raises:
        ValueError: The method has no strength, nothing is held out, or the stream has no tasks.
    """
    began = time.perf_counter()
    key, data, judged = searchable(spec)
    kept: list[Experience] = []
    trials: list[tuple[tuple[float, float], ...]] = []
    with on_threads(spec.threads):
        strategy, matrix = begun(spec, data, judged)
        runners = {0.0: _Runner(strategy, random_state(), matrix)}  # the first task has nothing to hold
        trainings = 0
        for task, experience in enumerate(data.train_stream):
            if task == 1:
                runners = {strength: copy.deepcopy(runners[0.0]) for strength in how.strengths}
            found = []
            for strength, runner in runners.items():
                set_random_state(runner.state)
                set_strength(runner.strategy, key, strength)
                runner.strategy.train(experience)
                runner.state = random_state()
                runner.matrix.record(task, accuracies(runner.strategy, judged))
                found.append((strength, fmean(accuracies(runner.strategy, [*kept, judged[task]]))))
            trainings += len(runners)
            kept.append(_sample(judged[task], how.keep, spec.seed))
            trials.append(tuple(found) if task else ())
            behind = behind_by(trials)
            runners = {
                strength: runner for strength, runner in runners.items() if behind.get(strength, 0.0) <= how.tolerance
            }
    first = min(runners, key=lambda strength: behind.get(strength, 0.0))
    return Raced(tuple(trials), trainings, runners[first].matrix, time.perf_counter() - began)


def behind_by(trials: Sequence[Sequence[Sequence[float]]]) -> dict[float, float]:
    """How far each λ was behind the best one, mean over the tasks after which it was judged.

    Example:
        >>> behind_by([[], [(10.0, 0.75), (1.0, 0.5)], [(10.0, 0.5)]])
        {10.0: 0.0, 1.0: 0.25}
    """
    by: dict[float, list[float]] = {}
    for task in filter(None, trials):
        best = max(accuracy for _, accuracy in task)
        for strength, accuracy in task:
            by.setdefault(strength, []).append(best - accuracy)
    return {strength: fmean(found) for strength, found in by.items()}


def in_front(found: Sequence[Mapping[str, Any]]) -> float:
    """One λ of several races: among all that are as good as the best, the middle (geometric mean), to three digits.

    As good means behind by at most ``CLOSE`` more, mean over seeds: with a few kept samples of each class it is luck
    which of them is the best, less so where their middle is.

    Example:
        >>> in_front([{"trials": [[], [[100.0, 0.9], [1.0, 0.9], [0.1, 0.5]]]}])
        10.0
    """
    seeds = [behind_by(entry["trials"]) for entry in found]
    mean = {strength: fmean(seed[strength] for seed in seeds) for strength in seeds[0]}
    least = min(mean.values())
    good = [math.log(strength) for strength, behind in mean.items() if behind <= least + CLOSE]
    return float(f"{math.exp(fmean(good)):.3g}")


def kept_of(spec: RunSpec) -> int:
    """As many samples of a class as the run has exemplars; 0 without any."""
    if spec.exemplars_total:
        data = stream_of(spec)
        return max(1, spec.exemplars_total // data.n_classes)
    return spec.exemplars


def _sample(experience: Experience, count: int, seed: int) -> Experience:
    """So many samples of each class."""
    labels = labels_of(experience.dataset).cpu()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = torch.cat([order[labels[order] == label][:count] for label in labels.unique()])
    return replace(experience, dataset=select(experience.dataset, chosen))
