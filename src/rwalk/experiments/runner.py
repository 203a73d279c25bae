"""Carries a spec out: network, optimizer, plugins and strategy as it describes them, trained on its stream."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from rwalk.errors import CheckpointError
from rwalk.experiments.data import evaluated, so_far, stream_of
from rwalk.experiments.methods import METHODS
from rwalk.experiments.recording import Recorder
from rwalk.experiments.results import Reference, RunResult
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.writing import writing_whole
from rwalk.metrics import AccuracyMatrix
from rwalk.models import MODELS, build_model
from rwalk.replay import Sampler
from rwalk.replay.layers import find_layer
from rwalk.replay.samplers import SAMPLERS
from rwalk.streams import Benchmark, Experience
from rwalk.training import (
    BasePlugin,
    BaseTemplate,
    CheckpointPlugin,
    DiscriminantPlugin,
    Naive,
    NearestMeanPlugin,
    OptimizerResetPlugin,
    ReplayPlugin,
    WeightAveragePlugin,
)
from rwalk.training.plugins.evaluation import experience_key

__all__ = [
    "OPTIMIZERS",
    "accuracies",
    "build_learner",
    "build_plugins",
    "build_strategy",
    "check_device",
    "on_threads",
    "run",
]

EVAL_BATCH = 1024
TEXT_MODEL = "text-mlp"

OPTIMIZERS: dict[str, Callable[[Any, float], Optimizer]] = {
    "adam": lambda parameters, lr: Adam(parameters, lr=lr, fused=True),
    "adamw": lambda parameters, lr: AdamW(parameters, lr=lr, fused=True),
    "sgd": lambda parameters, lr: SGD(parameters, lr=lr),
    "momentum": lambda parameters, lr: SGD(parameters, lr=lr, momentum=0.9),
}

JUDGES: dict[str, Callable[..., BasePlugin]] = {"nearest-mean": NearestMeanPlugin, "discriminant": DiscriminantPlugin}


def run(
    spec: RunSpec,
    *,
    plugins: Sequence[BasePlugin] = (),
    reference: Reference | None = None,
    checkpoint: CheckpointPlugin | None = None,
    weights: Path | None = None,
) -> RunResult:
    """Train on the spec's stream and evaluate on all that a run is judged by after each task.

    A task is an experience; in a task-free stream, a group of classes that is tested (see ``Stream``).

    Args:
        spec: What to run.
        plugins: Further plugins, such as a progress display.
        reference: Accuracy on each task k of a model trained jointly on 1..k, None where it is not known.
        checkpoint: Writes checkpoints, which this function fills in. If there is one of this run already, the run goes
            on from it, and ends bit for bit as if it had not been interrupted.
        weights: Where to write the model's last weights, a safetensors file.

    Raises:
        CheckpointError: The checkpoints are another run's, or none of them is whole.
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
        recorder = Recorder()
        matrix, before = _learn(spec, data, [recorder, *build_plugins(spec), *plugins], checkpoint, weights)
        seconds = before + time.perf_counter() - began
    return RunResult(spec, matrix, seconds, None if reference is None else tuple(reference), recorder.record())


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """So many threads of the CPU, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _learn(
    spec: RunSpec,
    data: Benchmark,
    plugins: Sequence[BasePlugin],
    checkpoint: CheckpointPlugin | None,
    weights: Path | None,
) -> tuple[AccuracyMatrix, float]:
    """Go through the stream, or what is left of it; the accuracy matrix, and the seconds that it took before."""
    torch.manual_seed(spec.seed)
    judged, source, began = evaluated(data), METHODS[spec.method].data, 0
    also = [] if checkpoint is None else [checkpoint]
    strategy = build_strategy(spec, data, [*plugins, *also])
    matrix = AccuracyMatrix(len(judged))
    learned, before = (0, 0.0) if checkpoint is None else _gone_on(spec, strategy, matrix, checkpoint)
    if spec.test_ahead and (checkpoint is None or checkpoint.found is None):
        matrix.record(-1, accuracies(strategy, judged))
    trained = 0
    for task, end in enumerate(judged.milestones):
        experiences = list(range(began, end)) if source == "new" else [end]
        began, trained = end, trained + len(experiences)
        if trained <= learned:
            continue
        if source == "joint":
            strategy.model, strategy.optimizer = build_learner(spec, data)
        for place in experiences[max(0, len(experiences) - (trained - learned)) :]:
            strategy.train(data.train_stream[place] if source == "new" else so_far(data, place))
        matrix.record(task, accuracies(strategy, judged if spec.test_ahead else judged[: task + 1]))
    if weights is not None:
        _write_weights(strategy.model, weights)
    return matrix, before


def _gone_on(spec: RunSpec, strategy: Naive, matrix: AccuracyMatrix, checkpoint: CheckpointPlugin) -> tuple[int, float]:
    """Load the newest checkpoint, if there is one; how many experiences were learned, and in how many seconds."""
    began, before = time.perf_counter(), 0.0

    def more() -> dict[str, Any]:
        seconds = before + time.perf_counter() - began
        return {"config": spec.canonical(), "matrix": matrix.state_dict(), "seconds": seconds}

    checkpoint.more = more
    found = checkpoint.newest()
    if found is None:
        return 0, before
    told, ours = found["more"].get("config"), spec.canonical()
    if told != ours:
        theirs = told if isinstance(told, dict) else {}
        key = next((key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)), "config")
        raise CheckpointError(
            f"{checkpoint.folder} holds checkpoints of another run, with {key}={theirs.get(key)!r} and not "
            f"{ours.get(key)!r}: choose another folder, or --overwrite it"
        )
    learned = checkpoint.resume(strategy, found)
    try:
        matrix.load_state_dict(found["more"]["matrix"])
        before = float(found["more"]["seconds"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint.folder}: a checkpoint without the run's matrix ({error})") from None
    return learned, before


def _write_weights(model: nn.Module, path: Path) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    content = save(tensors)
    with writing_whole(path) as file:
        file.write(content)


def accuracies(strategy: BaseTemplate, judged: Sequence[Experience]) -> list[float]:
    """The model's accuracy on each of some experiences."""
    metrics = strategy.eval(judged)
    return [float(metrics[experience_key("Top1_Acc", experience)]) for experience in judged]


def check_device(name: str) -> None:
    """Make sure that the machine has this device.

    Raises:
        ValueError: It has not.
    """
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r} cannot be used: {str(error).splitlines()[0]}") from error


def build_learner(spec: RunSpec, data: Benchmark) -> tuple[nn.Module, Optimizer]:
    """A network with fresh weights, and its optimizer.

    Raises:
        ValueError: A network for numbers shall read text, the exemplars' sampler names a layer that it has not, or see
            ``build_model``.
        TypeError: An option that the network does not take.
    """
    inputs = data.train_stream[0].dataset[0][0]
    if spec.model in MODELS and spec.model != TEXT_MODEL and not inputs.is_floating_point():
        raise ValueError(f"model={spec.model!r}: {spec.benchmark} holds token ids of texts; choose {TEXT_MODEL!r}")
    options = {"hidden": spec.hidden, **spec.model_options} if spec.model == "mlp" else spec.model_options
    try:
        model = build_model(spec.model, data.input_shape, data.n_classes, heads=spec.heads, **options).to(spec.device)
    except TypeError as error:
        if spec.model in str(error):
            raise
        raise TypeError(
            f"model={spec.model!r}: {error}; it is called as function(input_shape, n_classes, **model_options)"
        ) from error
    if spec.sampler_layer is not None:
        find_layer(model, spec.sampler_layer)
    return model, OPTIMIZERS[spec.optimizer](model.parameters(), spec.lr)


def build_plugins(spec: RunSpec) -> list[BasePlugin]:
    """What the method, the exemplars, and the beginnings and ends of experiences add to the loop."""
    plugins = METHODS[spec.method].plugins(spec.rwalk_config, spec.options)
    if spec.average_weights:  # other methods look at the model that the experience leaves
        plugins.insert(len(plugins) if spec.reads_rwalk else 0, WeightAveragePlugin())
    if spec.exemplars or spec.exemplars_total:
        replay = ReplayPlugin(
            per_class=spec.exemplars or None,
            mem_size=spec.exemplars_total,
            batch_size_mem=spec.replay_batch_size,
            sampler=_sampler(spec),
        )
        plugins.append(replay)
        if spec.classifier != "output":
            plugins.append(JUDGES[spec.classifier](replay, spec.sampler_layer, _heads_together(spec)))
    if spec.reset_optimizer:
        plugins.append(OptimizerResetPlugin())
    return plugins


def build_strategy(spec: RunSpec, data: Benchmark, plugins: Sequence[BasePlugin]) -> Naive:
    """The training loop, around a network with fresh weights."""
    model, optimizer = build_learner(spec, data)
    kind = Naive if spec.precision == "float32" else _InBfloat16
    return kind(
        model=model,
        optimizer=optimizer,
        train_mb_size=spec.batch_size,
        train_epochs=spec.epochs,
        eval_mb_size=EVAL_BATCH,
        device=spec.device,
        plugins=list(plugins),
    )


class _InBfloat16(Naive):
    """The same loop, where the network computes in bfloat16 as far as autocast holds that to be safe."""

    def forward(self) -> Any:
        """The model's output for the current batch, in float32 for the loss."""
        x = self.mbatch[0]
        if x.ndim == 4:
            self.mbatch[0] = x.contiguous(memory_format=torch.channels_last)  # convolutions keep it, and are faster
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            return super().forward().float()


def _sampler(spec: RunSpec) -> Sampler:
    kind: Any = SAMPLERS[spec.sampler]
    options: dict[str, Any] = {} if spec.sampler_layer is None else {"layer": spec.sampler_layer}
    if "classifier" in kind.__annotations__:
        options["classifier"] = _heads_together(spec)
    sampler: Sampler = kind(**options)
    return sampler


def _heads_together(spec: RunSpec) -> str | None:
    """The layer that classifies, where it is not the last linear one: that is the last task's head alone."""
    return "classifier" if spec.heads == "multi" else None
