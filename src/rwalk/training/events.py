"""The hook protocol: 26 moments of training and evaluation at which plugins act.

The names and their order are Avalanche's, so that a plugin written for one works in the other. The loop, as the
template runs it (``-> name`` calls that hook of every plugin, in the order of the plugin list)::

    train(experiences):
        -> before_training
        for experience in experiences:
            -> before_train_dataset_adaptation
            adapted_dataset = experience.dataset
            -> after_train_dataset_adaptation
            dataloader = batches of adapted_dataset
            -> before_training_exp
            for each epoch:
                -> before_training_epoch
                for mbatch in dataloader:
                    -> before_training_iteration
                    optimizer.zero_grad()
                    -> before_forward
                    mb_output = model(mb_x)
                    -> after_forward
                    loss += criterion(mb_output, mb_y)
                    -> before_backward
                    loss.backward()
                    -> after_backward
                    -> before_update
                    optimizer.step()
                    -> after_update
                    -> after_training_iteration
                -> after_training_epoch
            -> after_training_exp
        -> after_training

    eval(experiences):
        -> before_eval
        for experience in experiences:
            -> before_eval_dataset_adaptation
            adapted_dataset = experience.dataset
            -> after_eval_dataset_adaptation
            dataloader = batches of adapted_dataset
            -> before_eval_exp
            for mbatch in dataloader:
                -> before_eval_iteration
                -> before_eval_forward
                mb_output = model(mb_x)
                -> after_eval_forward
                loss = criterion(mb_output, mb_y)
                -> after_eval_iteration
            -> after_eval_exp
        -> after_eval
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["HOOKS", "BasePlugin", "check_hooks"]


class BasePlugin:
    """What every plugin may do, and nothing yet. Override the hooks you need.

    Each hook receives the strategy, whose state it may read and change, and the keyword arguments of the ``train`` or
    ``eval`` call. A method called ``before_…`` or ``after_…`` that is no hook raises ``TypeError`` when the class is
    made: a misspelt hook would otherwise never run.

    A plugin that keeps something from one experience to the next returns it from ``state_dict``, as tensors, numbers
    and strings in dictionaries and lists, and takes it back in ``load_state_dict``. What it keeps during an experience
    only, it may return from ``moment_dict(strategy)`` and take back in ``load_moment_dict(strategy, moment)``: they are
    called by ``CheckpointPlugin`` between two batches, and where training goes on from there.

    Example:
        >>> class Oops(BasePlugin):
        ...     def before_trainig(self, strategy, **kwargs): ...
        Traceback (most recent call last):
        ...
        TypeError: Oops.before_trainig is not a hook; did you mean before_training?
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_hooks(cls.__name__, vars(cls))

    def state_dict(self) -> dict[str, Any]:
        """What it keeps; nothing here."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned; it is not called where that was nothing."""

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """``train`` was called. The model is on its device in train mode; no experience is chosen yet."""

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        """``train`` is about to return: every experience it was given is learned."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Training on ``experience`` begins. ``adapted_dataset`` and ``dataloader`` are ready and may be replaced."""

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Training on ``experience`` has ended; the weights are final for it. ``clock`` still counts it as current."""

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """An epoch begins. ``stop_training()`` called here keeps it from running."""

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """An epoch has ended; ``clock.train_exp_epochs`` does not count it yet."""

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """``mbatch`` is on the device; gradients still are the last iteration's."""

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """The weights are updated; ``loss`` and ``mb_output`` are those of before the update."""

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Gradients are cleared; ``loss`` is zero, and what is added to it here stays."""

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """``mb_output`` is there; ``loss`` does not hold the criterion yet."""

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """``loss`` holds the criterion. What is added to it here is trained on, and part of the gradient."""

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        """``.grad`` holds the gradient of ``loss``: still scaled under a GradScaler, partial while accumulating."""

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        """The last moment at which gradients can be changed before the optimizer uses them."""

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """The optimizer has stepped, unless it accumulates or skipped the step; ``.grad`` is what it used."""

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """``experience`` is chosen; ``adapted_dataset`` is not set yet."""

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """``adapted_dataset`` is the experience's data and may be replaced; the data loader is made from it next."""

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """``eval`` was called: the model is in eval mode, gradients are off; ``is_training`` is False."""

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """``eval`` is about to return and to restore the state of a training it interrupted."""

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluation on ``experience`` begins; its data loader is ready."""

    def after_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluation on ``experience`` has ended."""

    def before_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """``mbatch`` is on the device."""

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """``mb_output`` and ``loss`` are those of ``mbatch``."""

    def before_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """The model is about to see ``mb_x``."""

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """``mb_output`` is there; ``loss`` is not."""

    def before_eval_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """``experience`` is chosen; ``adapted_dataset`` is not set yet."""

    def after_eval_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """``adapted_dataset`` is the experience's data and may be replaced."""


HOOKS: tuple[str, ...] = tuple(name for name in vars(BasePlugin) if name.startswith(("before_", "after_")))


def check_hooks(owner: str, names: Iterable[str]) -> None:
    """Refuse names that look like hooks and are none.

    Raises:
        TypeError: Naming the method and the hook that is most like it.
    """
    for name in names:
        if name.startswith(("before_", "after_")) and name not in HOOKS:
            likely = get_close_matches(name, HOOKS, n=1, cutoff=0.0)[0]
            raise TypeError(f"{owner}.{name} is not a hook; did you mean {likely}?")
