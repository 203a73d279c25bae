r"""λ without peeking: for each task as it comes, the strongest that the task can be learned under.

The continual hyper-parameter framework of De Lange et al. For each task, first *plasticity*: what accuracy fine-tuning
reaches on it. Then *stability*: λ begins high and is decayed until the accuracy reaches
:math:`(1 - p)` of that. Only the data of the task at hand is trained on and looked at: its training data, and a part of
it that is held out; no later task, no test data, and of earlier tasks nothing but the exemplars that the run keeps.

References:
    De Lange et al., *A continual learning survey: Defying forgetting in classification tasks*, TPAMI 2021.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from rwalk.errors import RWalkError
from rwalk.experiments.data import evaluated, stream_of
from rwalk.experiments.methods import METHODS
from rwalk.experiments.runner import accuracies, build_plugins, build_strategy, check_device, on_threads
from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix
from rwalk.random_state import random_state, set_random_state
from rwalk.streams import Benchmark, Stream
from rwalk.training import Naive

__all__ = ["Decay", "Found", "begun", "decayed", "last_accepted", "searchable", "set_strength"]


@dataclass(frozen=True)
class Decay:
    """How λ is looked for.

    Attributes:
        start: The λ to begin with, on the safe side: too strong. Each task begins with the one before's.
        factor: What λ is multiplied by as long as it is too strong.
        tolerance: Share of the accuracy of fine-tuning that may be lost on a task, :math:`p`.
        steps: How often λ is decayed at most in a task; then it is 0.
    """

    start: float = 1e5
    factor: float = 0.5
    tolerance: float = 0.05
    steps: int = 40

    def __post_init__(self) -> None:
        if not 0.0 < self.start < math.inf:
            raise ValueError(f"start={self.start!r}: expected a number > 0")
        if not 0.0 < self.factor < 1.0:
            raise ValueError(f"factor={self.factor!r}: expected a number between 0 and 1")
        if not 0.0 <= self.tolerance < 1.0:
            raise ValueError(f"tolerance={self.tolerance!r}: expected a share, at least 0 and below 1")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps!r}: expected at least 1")


@dataclass(frozen=True)
class Found:
    """What was found on one stream.

    Attributes:
        strengths: The λ accepted for each task, in order.
        plasticity: Accuracy of fine-tuning on each task, on its held-out data.
        trials: For each task, pairs of λ and the accuracy under it, in the order tried.
        trainings: How often a task was trained on; a run without a search would have done so once a task.
        matrix: Accuracy on the held-out data of all tasks, after each; no part of the choice.
        seconds: Wall time.
    """

    strengths: tuple[float, ...]
    plasticity: tuple[float, ...]
    trials: tuple[tuple[tuple[float, float], ...], ...]
    trainings: int
    matrix: AccuracyMatrix
    seconds: float


def decayed(spec: RunSpec, how: Decay) -> Found:
    """Learn a stream, choosing λ for each task when it comes.

    Args:
        spec: What to run, with ``validation`` > 0; its own λ is not read.
        how: The search.

    Raises:
        ValueError: The method has no strength, nothing is held out, or the stream has no tasks.
    """
    began = time.perf_counter()
    key, data, judged = searchable(spec)
    with on_threads(spec.threads):
        strategy, matrix = begun(spec, data, judged)
        strengths, plasticity, trials, trainings, strength = [], [], [], 0, how.start
        for task, experience in enumerate(data.train_stream):
            state = random_state()

            def learned(value: float) -> tuple[Naive, float, dict[str, Any]]:
                set_random_state(state)  # noqa: B023 - called in this pass of the loop only
                trial = copy.deepcopy(strategy)  # noqa: B023
                set_strength(trial, key, value)
                trial.train(experience)  # noqa: B023
                after = random_state()
                (accuracy,) = accuracies(trial, judged[task : task + 1])  # noqa: B023
                return trial, accuracy, after

            best, accuracy, after = learned(0.0)
            trainings, tried = trainings + 1, list[tuple[float, float]]()
            plasticity.append(accuracy)
            accepted = how.start if task == 0 else 0.0  # there is nothing to hold in the first task
            for _ in range(how.steps if task else 0):
                trial, accuracy, then = learned(strength)
                trainings += 1
                tried.append((strength, accuracy))
                if accuracy >= (1.0 - how.tolerance) * plasticity[-1]:
                    best, after, accepted = trial, then, strength
                    break
                strength *= how.factor
            strategy = best
            set_random_state(after)
            strengths.append(accepted)
            trials.append(tuple(tried))
            matrix.record(task, accuracies(strategy, judged))
    seconds = time.perf_counter() - began
    return Found(tuple(strengths), tuple(plasticity), tuple(trials), trainings, matrix, seconds)


def searchable(spec: RunSpec) -> tuple[str, Benchmark, Stream]:
    """What a search for λ along a stream goes by: the key of λ, the stream, and the held-out data of each task.

    Raises:
        ValueError: The method has no strength, nothing is held out, or the stream has no tasks, or one.
    """
    key = METHODS[spec.method].strength
    if key is None:
        raise ValueError(f"method {spec.method!r} has no strength to choose; --grid chooses other settings")
    if not spec.validation:
        raise ValueError("validation=0: λ is chosen on held-out training data; give its share, such as 0.1")
    check_device(spec.device)
    data = stream_of(spec)
    judged = evaluated(data)
    if len(judged) != len(data.train_stream):
        raise ValueError(f"{spec.benchmark} has no tasks: λ is judged when a task has been learned; take a grid")
    if len(judged) < 2:
        raise ValueError(f"{spec.benchmark} has one task here: λ holds nothing before the second")
    return key, data, judged


def begun(spec: RunSpec, data: Benchmark, judged: Stream) -> tuple[Naive, AccuracyMatrix]:
    """A run that has learned nothing yet, and its matrix with the accuracies of that."""
    torch.manual_seed(spec.seed)
    strategy = build_strategy(spec, data, build_plugins(spec))
    matrix = AccuracyMatrix(len(judged))
    matrix.record(-1, accuracies(strategy, judged))
    return strategy, matrix


def set_strength(strategy: Naive, key: str, value: float) -> None:
    """Give the method of a strategy another strength, from now on.

    Args:
        strategy: Whose plugins one of is the method's.
        key: ``Method.strength``; its last part is the plugin's attribute.
        value: The new one.

    Raises:
        RWalkError: No plugin has the attribute.
    """
    name = key.rpartition(".")[2]
    for plugin in strategy.plugins:
        if hasattr(plugin, name):
            setattr(plugin, name, value)
            return
    kinds = ", ".join(type(plugin).__name__ for plugin in strategy.plugins) or "no plugins"
    raise RWalkError(f"{kinds}: none has an attribute {name!r}, which {key} sets; give the method's plugin one")


def last_accepted(found: Sequence[Mapping[str, Any]]) -> float:
    """One λ of several searches: the median, over seeds, of the last task's; to three digits.

    It is the strongest that every task could be learned under, since λ only decays.
    """
    return float(f"{median(entry['strengths'][-1] for entry in found):.3g}")
