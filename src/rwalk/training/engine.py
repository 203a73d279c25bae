"""Where a training loop runs: on one device, plainly, or wherever an ``accelerate.Accelerator`` takes it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from rwalk.core.hooks import base_optimizer
from rwalk.streams import data_loader
from rwalk.streams.loader import Batches
from rwalk.training.adaptation import rewrapped

__all__ = ["AcceleratedEngine", "PlainEngine"]


class PlainEngine:
    """One device, one process, full precision; adds nothing to a step.

    Args:
        device: Where model and batches go.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._nothing = nullcontext()

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Model and optimizer as the loop uses them."""
        return model, optimizer

    def renew(self, model: nn.Module) -> nn.Module:
        """The model as the loop uses it, after its parameters have changed."""
        return rewrapped(model.to(self.device))

    def loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> Batches:
        """Batches of a dataset."""
        return data_loader(dataset, batch_size, **options)

    def accumulate(self, model: nn.Module) -> AbstractContextManager[Any]:
        """What surrounds the iteration."""
        return self._nothing

    def begin(self, optimizer: Optimizer) -> None:
        """An experience begins: nothing that was accumulated before it counts."""

    def zero_grad(self, optimizer: Optimizer) -> None:
        """Clear gradients, if the last iteration used them."""
        optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass."""
        loss.backward()

    def step(self, optimizer: Optimizer) -> None:
        """Step the optimizer, if this iteration completes a batch."""
        optimizer.step()

    @property
    def at_rest(self) -> bool:
        """Whether no gradient is kept for a later iteration."""
        return True

    @property
    def stepped(self) -> bool:
        """Whether the last iteration was a step of the optimizer, and that was not skipped."""
        return True

    def state_dict(self) -> dict[str, Any]:
        """What goes on from one step to the next; nothing here."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""

    def gather(self, values: Tensor) -> Tensor:
        """An evaluation batch's values from all processes, each sample once."""
        return values

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return values


class AcceleratedEngine(PlainEngine):
    """Devices, mixed precision, gradient accumulation and several processes, all done by Accelerate.

    Args:
        accelerator: An ``accelerate.Accelerator``.
    """

    def __init__(self, accelerator: Any) -> None:
        super().__init__(accelerator.device)
        self.accelerator = accelerator
        self._used = self._stepped = True

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Model and optimizer as Accelerate wraps them."""
        return cast("tuple[nn.Module, Optimizer]", self.accelerator.prepare(model, optimizer))

    def renew(self, model: nn.Module) -> nn.Module:
        """The model, if need be in a new wrapper, which Accelerate would not wrap once more."""
        renewed = super().renew(model)
        if renewed is not model:
            renewed._is_accelerate_prepared = True  # type: ignore[assignment]
        return renewed

    def loader(self, dataset: Dataset[Any], batch_size: int, **options: Any) -> Batches:
        """Batches of this process's share; ``batch_size`` counts per process."""
        plain = data_loader(dataset, batch_size, in_memory=False, **options)
        return cast("Batches", self.accelerator.prepare_data_loader(plain))

    def accumulate(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Tells Accelerate where an iteration begins and ends."""
        return cast("AbstractContextManager[Any]", self.accelerator.accumulate(model))

    def begin(self, optimizer: Optimizer) -> None:
        """An experience begins: what an accumulation that was broken off has left behind goes."""
        if not self._used:
            base_optimizer(optimizer).zero_grad()
            self.accelerator.step, self._used = 0, True

    def zero_grad(self, optimizer: Optimizer) -> None:
        """Clear gradients only after the optimizer has used them."""
        if self._used:
            base_optimizer(optimizer).zero_grad()
        self._used = False

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass, scaled as precision and accumulation need."""
        self.accelerator.backward(loss)

    def step(self, optimizer: Optimizer) -> None:
        """Step, unless gradients are still being accumulated."""
        optimizer.step()
        self._used = self.accelerator.sync_gradients
        self._stepped = self._used and not getattr(optimizer, "step_was_skipped", False)

    @property
    def at_rest(self) -> bool:
        """Whether the last iteration has used what was accumulated."""
        return self._used

    @property
    def stepped(self) -> bool:
        """Whether it has, and no gradient was infinite in mixed precision."""
        return self._stepped

    def state_dict(self) -> dict[str, Any]:
        """The scaler of mixed precision, and how many iterations were counted."""
        scaler = self.accelerator.scaler
        return {"step": self.accelerator.step, "scaler": None if scaler is None else scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""
        self.accelerator.step, self._used = state_dict["step"], True
        if self.accelerator.scaler is not None and state_dict["scaler"]:
            self.accelerator.scaler.load_state_dict(state_dict["scaler"])

    def gather(self, values: Tensor) -> Tensor:
        """Values from all processes, without the samples that only padded the last batch."""
        return cast("Tensor", self.accelerator.gather_for_metrics(values))

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        return cast("Tensor", self.accelerator.reduce(values, "sum"))
