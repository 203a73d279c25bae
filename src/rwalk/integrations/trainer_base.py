"""Trainer and PEFT: what the frozen base knows is held while adapters learn, from training to training."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from rwalk.core.first_protection import FirstProtection
from rwalk.integrations.peft import BaseProtection
from rwalk.integrations.trainer_checkpoints import state_file

__all__ = ["HeldBase"]

log = logging.getLogger(__name__)


class HeldBase:
    """A ``BaseProtection`` that a callback makes when there is a PEFT model and something to protect.

    Args:
        ewc_lambda: Its strength.

    Attributes:
        protection: None until then.
    """

    def __init__(self, ewc_lambda: float) -> None:
        self.ewc_lambda = ewc_lambda
        self.protection: BaseProtection | None = None

    def follow(self, model: nn.Module, optimizer: Optimizer, source: Path | None) -> None:
        """Go on with what was protected before: in this object, or beside a state that is loaded."""
        file = None if source is None else _file(source)
        if self.protection is not None:
            if self.protection.attached:
                self.protection.detach()
            self.protection.follow(model, optimizer)
        elif file is not None and file.is_file():
            self.protection = BaseProtection.load(file, model, optimizer, attach=False)

    def protect(self, model: nn.Module, optimizer: Optimizer, first: FirstProtection, **how: object) -> None:
        """Protect the base by what a door was given."""
        self.protection = BaseProtection(model, optimizer, self.ewc_lambda, attach=False)
        log.info("protect: the base, %s", self.protection.protect(first.batches(**how), **first.options))  # type: ignore[arg-type]
        first.data = None

    def attach(self) -> None:
        """After the RWalk of the adapters, which reads the loss's gradient."""
        if self.protection is not None:
            self.protection.attach()

    def detach(self) -> None:
        """Let go of the optimizer."""
        if self.protection is not None and self.protection.attached:
            self.protection.detach()

    def save(self, state: Path) -> None:
        """Beside the RWalk's own state."""
        if self.protection is not None:
            self.protection.save(state.with_name("base.safetensors"))


def _file(source: Path) -> Path:
    return state_file(source).with_name("base.safetensors")
