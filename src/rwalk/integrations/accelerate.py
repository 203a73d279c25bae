"""Accelerate: RWalk on a prepared optimizer, its state saved and loaded with the accelerator's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from rwalk.core import RWalk, RWalkConfig
from rwalk.core.first_protection import FirstProtection
from rwalk.errors import MissingExtraError, RWalkError

try:
    from accelerate import Accelerator, DistributedType
    from accelerate.optimizer import AcceleratedOptimizer
except ImportError as error:
    raise MissingExtraError("prepare_rwalk", "accelerate", error) from error

__all__ = ["prepare_rwalk"]

ENGINES = (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def prepare_rwalk(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Optimizer,
    config: RWalkConfig | None = None,
    *,
    protect: Any = None,
    protect_options: Mapping[str, Any] | None = None,
) -> RWalk:
    """Attach an RWalk to a prepared optimizer and register it for the accelerator's checkpoints.

    ``RWalk(model, optimizer, config)`` itself works before or after ``prepare`` too; this adds the registration and
    refuses what could not work.

    Args:
        accelerator: What prepared the two.
        model: The model, as ``prepare`` returned it.
        optimizer: The optimizer, as ``prepare`` returned it. One call for each, where there are several.
        config: Settings; ``RWalkConfig()`` if None.
        protect: Batches of what the model knows already, prepared (each process gives its share) or not (each gives
            them all): ``RWalk.protect`` protects the model as it stands, and ``combine="replace"`` becomes ``"sum"``,
            so that this is kept. A state that is loaded later has it already.
        protect_options: Keyword arguments of ``RWalk.protect``.

    Returns:
        The core. ``accelerator.save_state`` writes its state beside the model's and ``load_state`` reads it.

    Raises:
        TypeError: ``protect`` is a single batch.
        ValueError: An option that ``RWalk.protect`` does not have.
        RWalkError: The optimizer is not prepared; DeepSpeed or Megatron-LM, which step inside their own engine; or as
            ``RWalk``.

    Example:
        >>> import torch
        >>> accelerator = Accelerator(cpu=True)
        >>> model = nn.Linear(2, 1)
        >>> model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> rwalk = prepare_rwalk(accelerator, model, optimizer, RWalkConfig(ewc_lambda=1.0))
        >>> rwalk.attached
        True
    """
    if accelerator.distributed_type in ENGINES:
        raise RWalkError(
            f"{accelerator.distributed_type.value} steps inside its own engine, where gradients cannot be read: launch "
            "with DDP or FSDP"
        )
    if not isinstance(optimizer, AcceleratedOptimizer):
        raise RWalkError(
            f"the optimizer ({type(optimizer).__name__}) is not prepared: call prepare_rwalk with what "
            "model, optimizer = accelerator.prepare(model, optimizer) returned"
        )
    first = FirstProtection(protect, protect_options)
    plain = accelerator.unwrap_model(model)
    rwalk = RWalk(plain if protect is None else model, optimizer, first.keeps(config), attach=False)
    first([rwalk], batch_size=1)  # the wrapped model knows of the other processes
    rwalk.attach(model=plain)
    accelerator.register_for_checkpointing(rwalk)
    return rwalk
