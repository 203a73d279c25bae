"""Riemannian Walk as a plugin."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rwalk.batches import checked_scores
from rwalk.core import RWalk, RWalkConfig
from rwalk.core.checking import check_state, fault
from rwalk.core.container import shown
from rwalk.core.first_protection import FirstProtection
from rwalk.core.hooks import base_optimizer
from rwalk.errors import RWalkError, StateError
from rwalk.streams import data_loader
from rwalk.streams.collating import collate, collate_fn_of
from rwalk.training.events import HOOKS, BasePlugin
from rwalk.training.plugins.replay import forward_on
from rwalk.training.rereading import given_collate_fn, loader_options, spread

if TYPE_CHECKING:
    from rwalk.core.report import Report

__all__ = ["RWalkPlugin"]


class RWalkPlugin(BasePlugin):
    r"""Protects what past experiences taught, in any strategy that follows the hook protocol.

    The same object works in this package's templates and in ``avalanche.training`` strategies. The gradient is read
    from the strategy's own optimizer step: no second forward or backward pass, no change to the model's mode, and
    ``strategy.loss`` stays the plain loss.

    Settings may be changed between experiences, and hold from then on: ``plugin.ewc_lambda = 5.0``, or any of them by
    ``plugin.config = plugin.config.replace(...)``.

    Args:
        ewc_lambda: Strength :math:`\lambda` of the penalty (Eq. 8).
        ewc_alpha: Weight :math:`\alpha` of the new squared gradient in the Fisher (Eq. 6).
        delta_t: Iterations :math:`\Delta t` between checkpoints of the path score.

    Raises:
        TypeError: A setting has the wrong type. In training, with ``fisher_source="samples"`` or ``"loader"``: the
            model's output holds no scores.
        ValueError: A setting is out of range.
        RWalkError: In training: two of these plugins in one strategy, a strategy of another protocol, or a model
            replaced by one that lacks parameters whose importances are kept. Later: a new setting that the state which
            is kept does not serve.

    Attributes:
        rwalk: The core; None until training begins.

    Example:
        >>> plugin = RWalkPlugin(ewc_lambda=10.0)
        >>> plugin.ewc_lambda = 5.0
        >>> plugin.config.ewc_lambda
        5.0
    """

    supports_distributed = True

    # without "-> None", which inspect.signature would show as the class's
    def __init__(self, ewc_lambda: float = 0.1, ewc_alpha: float = 0.9, delta_t: int = 10):
        self._protect = FirstProtection(None, None)
        self._config = RWalkConfig(ewc_lambda=ewc_lambda, ewc_alpha=ewc_alpha, delta_t=delta_t)
        self.rwalk: RWalk | None = None
        self._saved: dict[str, Any] = {}
        self._seen: dict[tuple[int, ...], set[int]] = {}
        self._hints: list[str] = []

    @classmethod
    def from_config(
        cls, config: RWalkConfig, *, protect: Any = None, protect_options: Mapping[str, Any] | None = None
    ) -> RWalkPlugin:
        """A plugin with all settings at once.

        Args:
            config: The settings.
            protect: What the model knows already: batches x or (x, y, …), or a dataset of samples (x, y, …), of which
                batches are made as for training. When the first experience begins, ``RWalk.protect`` protects the model
                as it stands; ``combine="replace"`` becomes ``"sum"``, so that this is kept. A state that is loaded has
                it already.
            protect_options: Keyword arguments of ``RWalk.protect``. A model that needs task labels needs ``log_prob``.

        Raises:
            TypeError: Not an ``RWalkConfig``, or ``protect`` is a single batch.
            ValueError: An option that ``RWalk.protect`` does not have.

        Example:
            >>> RWalkPlugin.from_config(RWalkConfig.avalanche(ewc_lambda=10.0)).config.unfinished
            'carry'
        """
        plugin = cls()
        plugin.config = config
        plugin._protect = FirstProtection(protect, protect_options)
        plugin.config = plugin._protect.keeps(config)
        return plugin

    @property
    def config(self) -> RWalkConfig:
        """All settings; the core's, once there is one."""
        return self._config if self.rwalk is None else self.rwalk.config

    @config.setter
    def config(self, config: RWalkConfig) -> None:
        if not isinstance(config, RWalkConfig):
            raise TypeError(f"config={config!r}: expected an RWalkConfig")
        if self.rwalk is None:
            self._config = config
        else:
            self.rwalk.config = config

    @property
    def ewc_lambda(self) -> float:
        """Strength of the penalty."""
        return self.config.ewc_lambda

    @ewc_lambda.setter
    def ewc_lambda(self, value: float) -> None:
        self.config = self.config.replace(ewc_lambda=value)

    @property
    def ewc_alpha(self) -> float:
        """Weight of the new squared gradient in the Fisher."""
        return self.config.ewc_alpha

    @ewc_alpha.setter
    def ewc_alpha(self, value: float) -> None:
        self.config = self.config.replace(ewc_alpha=value)

    @property
    def delta_t(self) -> int | None:
        """Iterations in a window of the path score; None where each task is one."""
        return self.config.delta_t

    @delta_t.setter
    def delta_t(self, value: int | None) -> None:
        self.config = self.config.replace(delta_t=value)

    def report(self, loss: Tensor | float | None = None) -> Report:
        """``RWalk.report``, with what is known of the stream: classes that no exemplar keeps from being outvoted.

        Raises:
            RWalkError: Training has not begun.
        """
        if self.rwalk is None:
            raise RWalkError("there is nothing to report before training begins")
        return self.rwalk.report(loss, hints=self._hints)

    def state_dict(self) -> dict[str, Any]:
        """The core's state; empty before there is any."""
        return self._saved if self.rwalk is None else {"rwalk": self.rwalk.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``, with the settings that this plugin has; before training, as soon as it begins.

        Raises:
            StateError: The state is not rwalk's, damaged, or does not fit the model. Nothing has changed then. Before
                training there is no model to fit: that is seen as soon as it begins.
        """
        if self.rwalk is None:
            if state_dict:
                _check_saved(state_dict.get("rwalk"))
            self._saved = dict(state_dict)
        elif state_dict:
            self.rwalk.load_state_dict(state_dict["rwalk"])

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Make sure that this strategy can be followed; a window left open by an earlier ``train`` call is dropped."""
        _check_strategy(strategy)
        if self.rwalk is not None:
            self.rwalk.settle()  # the last step of a training that was interrupted
            self.rwalk.drop_window()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Follow the strategy's model and optimizer, which may be others than last time."""
        self._follow(strategy, **kwargs)
        self._hints = _outvoted(strategy, self._seen)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Follow an optimizer or model put in place since."""
        rwalk = self.rwalk
        if (
            rwalk is None
            or rwalk.model is not strategy.model
            or rwalk.optimizer is not base_optimizer(strategy.optimizer)
        ):
            self._follow(strategy, **kwargs)

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Where the experience's data is read again at its end, what that needs has to be there."""
        if self.config.fisher_source != "step":
            checked_scores(strategy.mb_output, f"RWalkPlugin with fisher_source={self.config.fisher_source!r}")

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The task ends. Steps taken until the next experience begins are not followed."""
        if self.rwalk is not None:
            if self.config.fisher_source != "step":
                dataset = spread(strategy.adapted_dataset, self.config.fisher_samples)
                options = loader_options(strategy, kwargs)
                batches = data_loader(dataset, strategy.train_mb_size, shuffle=False, **options)
                forward = _scores if self.config.fisher_source == "samples" else _scores_by_class
                self.rwalk.consolidate(batches, forward=partial(forward, strategy))
            else:
                self.rwalk.consolidate()
            if self.rwalk.attached:
                self.rwalk.detach()

    def _follow(self, strategy: Any, **kwargs: Any) -> None:
        if self.rwalk is None:
            begun = RWalk(strategy.model, strategy.optimizer, self.config, attach=False)
            if self._saved:
                begun.load_state_dict(self._saved["rwalk"])
            else:
                self._protect(
                    [begun],
                    batch_size=strategy.train_mb_size,
                    collate_fn=given_collate_fn(strategy, kwargs) or collate_fn_of(self._protect.data) or _collate,
                    prepare=_without_task_labels,
                )
            self.rwalk, self._saved = begun, {}  # only now: after an error the next training begins anew
        else:
            if self.rwalk.attached:  # training was interrupted, or the optimizer was replaced
                self.rwalk.detach()
            self.rwalk.follow(strategy.model, strategy.optimizer)
        self.rwalk.attach()


def _outvoted(strategy: Any, seen: dict[tuple[int, ...], set[int]]) -> list[str]:
    """Whether old classes share outputs with new ones and none of their exemplars is replayed."""
    experience = getattr(strategy, "experience", None)
    classes = {int(label) for label in getattr(experience, "classes_in_this_experience", None) or ()}
    outputs = seen.setdefault(tuple(getattr(experience, "task_labels", None) or (0,)), set())
    past = outputs - classes
    outputs |= classes
    replays = any(hasattr(plugin, "memory") or hasattr(plugin, "storage_policy") for plugin in strategy.plugins)
    if not classes or not past or replays:
        return []
    return [
        f"{len(past)} classes of past experiences share outputs with the new ones and have no exemplars: they are "
        "outvoted whatever ewc_lambda is; add a ReplayPlugin"
    ]


def _collate(samples: list[Any]) -> Any:
    """As ``collate``, but samples may be lists ``[x, y]``, which torch's own function takes as well."""
    return collate([tuple(sample) if isinstance(sample, list) else sample for sample in samples])


def _without_task_labels(batch: Any) -> Any:
    return batch[:2] if isinstance(batch, (list, tuple)) else batch


def _scores(strategy: Any, batch: Any) -> Tensor:
    """What the strategy's own forward pass says of a batch."""
    return checked_scores(forward_on(strategy, batch), "RWalkPlugin")


def _scores_by_class(strategy: Any, batch: Any) -> Tensor:
    """The same, shape (B, C, ...): models that answer by a mapping (Hugging Face's) have their classes last."""
    output = forward_on(strategy, batch)
    scores = checked_scores(output, "RWalkPlugin")
    return scores.movedim(-1, 1) if isinstance(output, Mapping) else scores


def _check_saved(state: Any) -> None:
    """What of a state can be told before there is a model.

    Raises:
        StateError: It is not rwalk's, or damaged.
    """
    check_state(state)
    for name, values in {} if state.get("compact") else state["parameters"].items():
        for quantity, value in values.items():
            wrong = fault(quantity, value, state["tasks"]) if isinstance(value, Tensor) else None
            if wrong is not None:
                raise StateError(f"the state of {shown(name)}: its {quantity} is {wrong}")


def _check_strategy(strategy: Any) -> None:
    """Refuse a strategy in which the plugin could not work.

    Raises:
        RWalkError: It has two of these plugins, or its protocol lacks hooks or state that the plugin needs.
    """
    name = type(strategy).__name__
    if sum(isinstance(other, RWalkPlugin) for other in strategy.plugins) > 1:
        raise RWalkError(f"{name} has two RWalkPlugins, which would penalise twice: keep one")
    missing = [state for state in ("model", "optimizer", "clock") if not hasattr(strategy, state)]
    protocol = getattr(strategy, "PLUGIN_CLASS", None)
    missing += [hook for hook in HOOKS if protocol is not None and not hasattr(protocol, hook)]
    if missing:
        raise RWalkError(
            f"{name} follows another protocol: it has no {missing[0]!r}. RWalkPlugin follows avalanche-lib 0.6; "
            "elsewhere, attach rwalk.RWalk to the optimizer instead"
        )
