"""What a spec describes, built: network, optimizer, plugins, strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from rwalk.experiments.methods import METHODS
from rwalk.experiments.spec import RunSpec
from rwalk.models import MODELS, build_model
from rwalk.replay import Sampler
from rwalk.replay.layers import find_layer
from rwalk.replay.samplers import SAMPLERS
from rwalk.streams import Benchmark
from rwalk.training import BasePlugin, Naive, ReplayPlugin

__all__ = ["build_learner", "build_plugins", "build_strategy", "check_device"]

EVAL_BATCH = 1024
TEXT_MODEL = "text-mlp"

OPTIMIZERS: dict[str, Callable[[Any, float], Optimizer]] = {
    "adam": lambda parameters, lr: Adam(parameters, lr=lr),
    "adamw": lambda parameters, lr: AdamW(parameters, lr=lr),
    "sgd": lambda parameters, lr: SGD(parameters, lr=lr),
    "momentum": lambda parameters, lr: SGD(parameters, lr=lr, momentum=0.9),
}


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
    model = build_model(spec.model, data.input_shape, data.n_classes, heads=spec.heads, **options).to(spec.device)
    if spec.sampler_layer is not None:
        find_layer(model, spec.sampler_layer)
    return model, OPTIMIZERS[spec.optimizer](model.parameters(), spec.lr)


def build_plugins(spec: RunSpec) -> list[BasePlugin]:
    """What the method and the exemplars add to the loop."""
    plugins = METHODS[spec.method].plugins(spec.rwalk_config, spec.options)
    if spec.exemplars or spec.exemplars_total:
        replay = ReplayPlugin(
            per_class=spec.exemplars or None,
            mem_size=spec.exemplars_total,
            batch_size_mem=spec.replay_batch_size,
            sampler=_sampler(spec),
        )
        plugins.append(replay)
    return plugins


def build_strategy(spec: RunSpec, data: Benchmark, plugins: Sequence[BasePlugin]) -> Naive:
    """The training loop, around a network with fresh weights."""
    model, optimizer = build_learner(spec, data)
    return Naive(
        model=model,
        optimizer=optimizer,
        train_mb_size=spec.batch_size,
        train_epochs=spec.epochs,
        eval_mb_size=EVAL_BATCH,
        device=spec.device,
        plugins=list(plugins),
    )


def _sampler(spec: RunSpec) -> Sampler:
    kind: Any = SAMPLERS[spec.sampler]
    options = {} if spec.sampler_layer is None else {"layer": spec.sampler_layer}
    if spec.heads == "multi" and "classifier" in kind.__annotations__:
        options["classifier"] = "classifier"  # all heads together: the last linear layer is the last task's alone
    sampler: Sampler = kind(**options)
    return sampler
