"""Memory Aware Synapses as a plugin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rwalk.batches import checked_scores, inputs_of, task_labels_of, to_device
from rwalk.models import ModelCall
from rwalk.models.following import resized
from rwalk.models.wrappers import unwrapped
from rwalk.module_state import in_eval_mode
from rwalk.streams import data_loader
from rwalk.training.events import BasePlugin
from rwalk.training.rereading import loader_options, spread

__all__ = ["MASPlugin", "sensitivity"]


def sensitivity(outputs: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    r"""How much each parameter moves the output, :math:`|\partial \sum_x \|f(x)\|^2 / \partial\theta|`.

    Scores of classes that are out of the question (the dtype's lowest number) are no part of the output.

    Args:
        outputs: Scores :math:`f(x)`, shape (B, C), with their graph. Gradients of several samples may cancel.
        parameters: :math:`\theta`.

    Returns:
        A tensor in each parameter's shape; zeros where it has no part in the output.

    Example:
        >>> weight = nn.Parameter(torch.tensor([[1.0], [-2.0]]))
        >>> sensitivity(torch.tensor([[3.0]]) @ weight.T, [weight])
        [tensor([[18.],
                [36.]])]
    """
    inside = outputs > torch.finfo(outputs.dtype).min
    length = outputs.masked_fill(~inside, 0.0).square().sum()
    gradients = torch.autograd.grad(length, parameters, materialize_grads=True)
    return [gradient.detach().abs() for gradient in gradients]  # older torch makes zeros that require a gradient


class MASPlugin(BasePlugin):
    r"""Holds parameters that the output is sensitive to near the value that they had.

    After each experience, importances :math:`\Omega_i` grow by the mean ``sensitivity`` over its samples, in eval mode,
    and anchors :math:`\theta^*` are set. From then on
    :math:`\lambda \sum_i \Omega_i (\theta_i - \theta^*_i)^2` is added to the loss. Labels play no part in it.

    Args:
        strength: :math:`\lambda`.
        samples: How many samples of an experience are looked at, evenly spaced; all if None.
        batch_size: How many of them share one backward pass. With 1, as published, none cancels another.
        decay: What importances of past experiences are multiplied by. 1 as published, 0 holds the last one's alone.

    Raises:
        ValueError: ``strength`` is negative, ``samples`` or ``batch_size`` below 1, or ``decay`` not in [0, 1].

    Attributes:
        importances: :math:`\Omega` by parameter name.
        anchors: :math:`\theta^*` by parameter name.

    Example:
        >>> MASPlugin(strength=0.5).importances
        {}

    References:
        Aljundi et al., *Memory Aware Synapses: Learning what (not) to forget*, ECCV 2018.
    """

    def __init__(
        self, strength: float = 1.0, samples: int | None = None, batch_size: int = 1, decay: float = 1.0
    ) -> None:
        if not 0.0 <= strength < float("inf"):
            raise ValueError(f"strength={strength!r}: expected a number ≥ 0")
        if samples is not None and samples < 1:
            raise ValueError(f"samples={samples!r}: expected at least 1")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}: expected at least 1")
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay={decay!r}: expected a number in [0, 1]")
        self.strength, self.samples, self.batch_size, self.decay = strength, samples, batch_size, decay
        self.importances: dict[str, Tensor] = {}
        self.anchors: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Importances and anchors."""
        return {"importances": dict(self.importances), "anchors": dict(self.anchors)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back importances and anchors."""
        self.importances, self.anchors = dict(state_dict["importances"]), dict(state_dict["anchors"])

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Parameters that have grown since are free in what is new of them."""
        for name, parameter in _trained(strategy.model):
            for held in (self.importances, self.anchors):
                if name in held:
                    here = held[name].to(parameter.device)
                    held[name] = here if here.shape == parameter.shape else resized(here, parameter.shape)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty to the loss."""
        checked_scores(strategy.mb_output, "MASPlugin")
        for name, parameter in _trained(strategy.model):
            if name in self.importances:
                away = parameter - self.anchors[name]
                strategy.loss = strategy.loss + self.strength * (self.importances[name] * away.square()).sum()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the experience's samples once more; what was learned becomes the anchor."""
        model, dataset = unwrapped(strategy.model), strategy.experience.dataset
        names, parameters = zip(*_trained(model), strict=True)
        dataset, options = spread(dataset, self.samples), loader_options(strategy, kwargs)
        task_label, count = options["task_label"], len(dataset)
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        call = ModelCall(model)
        with in_eval_mode(model):
            for batch in data_loader(dataset, self.batch_size, shuffle=False, **options):
                here = to_device(batch, strategy.device)
                outputs = checked_scores(call(inputs_of(here), task_labels_of(here, task_label)), "MASPlugin")
                torch._foreach_add_(totals, sensitivity(outputs, list(parameters)))
        for name, parameter, total in zip(names, parameters, totals, strict=True):
            old = self.importances.get(name)
            self.importances[name] = total / count if old is None else self.decay * old + total / count
            self.anchors[name] = parameter.detach().clone()


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in unwrapped(model).named_parameters() if parameter.requires_grad]
