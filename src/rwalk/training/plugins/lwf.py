"""Learning without Forgetting as a plugin."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwalk.batches import checked_scores
from rwalk.models import CurrentClassifier, ModelCall, MultiTaskModule
from rwalk.models.multi_head import classes_by_task
from rwalk.models.wrappers import unwrapped
from rwalk.training.events import BasePlugin

__all__ = ["LwFPlugin", "distillation"]


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""How far the student's softened answers are from the teacher's.

    .. math:: T^2 \, \frac1B \sum_b \mathrm{KL}\bigl(\mathrm{softmax}(z^*_b / T) \,\|\, \mathrm{softmax}(z_b / T)\bigr)

    The factor :math:`T^2` keeps the size of its gradient independent of the temperature.

    Args:
        student: Scores :math:`z`, shape (B, C).
        teacher: Scores :math:`z^*`, shape (B, C).
        temperature: :math:`T` > 0.

    Example:
        >>> scores = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
        >>> float(distillation(scores, scores, 2.0)), round(float(distillation(scores, 0 * scores, 2.0)), 4)
        (0.0, 0.4805)

    References:
        Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network*, 2015.
    """
    ours, theirs = (F.log_softmax(scores / temperature, dim=1) for scores in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


class LwFPlugin(BasePlugin):
    """Holds the answers for the classes seen before to those of the model before the experience.

    From the second experience on, ``distillation`` between the model and a copy of it, made when the last experience
    was learned, is added to the loss: over the classes of past experiences only, on the batch at hand. With an output
    layer for each task label, each past task's own layer is held, in a further forward pass for each.

    Args:
        strength: Weight of the distillation beside the plain loss.
        temperature: Above 1, small scores count more.

    Raises:
        ValueError: ``strength`` is negative, or ``temperature`` is not above 0. Before training: the model has a
            ``CurrentClassifier``, which masks scores of past classes. In training: an experience without class labels,
            of whose scores there is nothing to hold.

    Attributes:
        teacher: The copy, in eval mode; None during the first experience.

    Example:
        >>> LwFPlugin(strength=1.0, temperature=2.0).teacher is None
        True

    References:
        Li and Hoiem, *Learning without Forgetting*, ECCV 2016. The paper adds a cross-entropy where this adds a
        divergence times :math:`T^2`; the gradients differ by that factor.
    """

    supports_distributed = True

    def __init__(self, strength: float = 1.0, temperature: float = 2.0) -> None:
        if not 0.0 <= strength < float("inf"):
            raise ValueError(f"strength={strength!r}: expected a number ≥ 0")
        if not 0.0 < temperature < float("inf"):
            raise ValueError(f"temperature={temperature!r}: expected a number > 0")
        self.strength, self.temperature = strength, temperature
        self.teacher: nn.Module | None = None
        self._weights: dict[str, Tensor] = {}
        self._classes: dict[int, set[int]] = {}  # seen, by task label; all under 0 if the model has no use for labels

    def state_dict(self) -> dict[str, Any]:
        """The teacher's weights, and the classes that it knows."""
        known = {str(task): sorted(classes) for task, classes in self._classes.items()}
        weights = self._weights if self.teacher is None else self.teacher.state_dict()
        return {"teacher": weights, "classes": known} if weights else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back a teacher, when training begins: a model like the strategy's as it is then."""
        self._weights, self.teacher = state_dict["teacher"], None
        self._classes = {int(task): set(classes) for task, classes in state_dict["classes"].items()}

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a model without scores to hold; make the teacher of a state that was loaded."""
        _check_scores(strategy.model)
        if self._weights:
            moment = getattr(strategy, "_moment", None)  # in the midst of an experience the model may have grown
            like = None if moment is None else moment.as_built
            model = unwrapped(strategy.model) if like is None else like
            self.teacher = copy.deepcopy(model).to(strategy.device).eval().requires_grad_(False)
            self.teacher.load_state_dict(self._weights)
            self._weights = {}

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """Nothing beside its state."""
        return {}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """The teacher is needed at once."""
        self.before_training(strategy)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distillation to the loss."""
        checked_scores(strategy.mb_output, "LwFPlugin")
        if self.teacher is None:
            return
        told, by_task = ModelCall(self.teacher), _has_tasks(self.teacher)
        for task, seen in self._classes.items():
            classes = torch.tensor(sorted(seen), device=strategy.device)
            labels = torch.full_like(strategy.mb_task_id, task)
            with torch.no_grad():
                theirs = told(strategy.mb_x, labels)
            ours = ModelCall(strategy.model)(strategy.mb_x, labels) if by_task else strategy.mb_output
            student, teacher = (
                checked_scores(output, "LwFPlugin").index_select(1, classes) for output in (ours, theirs)
            )
            strategy.loss = strategy.loss + self.strength * distillation(student, teacher, self.temperature)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """What was learned is the next experience's teacher."""
        model, experience = unwrapped(strategy.model), strategy.experience
        if not experience.classes_in_this_experience:
            raise ValueError(
                f"LwFPlugin holds scores of classes, and experience {experience.current_experience} has no class labels"
            )
        arrived = {0: experience.classes_in_this_experience}
        for task, classes in (classes_by_task(experience) if _has_tasks(model) else arrived).items():
            self._classes.setdefault(task, set()).update(classes)
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)


def _check_scores(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, CurrentClassifier):
            raise ValueError(
                f"LwFPlugin holds scores of past classes, and {name or 'the model'} is a {type(module).__name__}, "
                "which masks them in training: take heads='masked' (MaskedClassifier) or 'growing' "
                "(IncrementalClassifier)"
            )


def _has_tasks(model: nn.Module) -> bool:
    return any(isinstance(module, MultiTaskModule) for module in model.modules())
