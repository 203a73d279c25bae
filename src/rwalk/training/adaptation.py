"""Before an experience: the model adapts to it, the optimizer follows, and wrappers are renewed."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from rwalk.core.hooks import base_optimizer
from rwalk.core.sharding import is_sharded
from rwalk.errors import RWalkError
from rwalk.models.dynamic import adapt, is_dynamic
from rwalk.models.following import follow_parameters, parameters_of
from rwalk.models.wrappers import compiled

__all__ = ["adapt_model", "rewrapped"]


def adapt_model(model: nn.Module, optimizer: Optimizer, experience: Any) -> bool:
    """Let the dynamic modules of a model adapt to an experience, and its optimizer follow.

    For a training loop of your own; the templates do it by themselves.

    Args:
        model: In train mode it may grow; in eval mode its parameters stay.
        optimizer: What trains it; see ``follow_parameters``. Wrapped optimizers (Accelerate) are unwrapped.
        experience: What will be learned or evaluated.

    Returns:
        Whether the model has other parameters now. A DDP model has to be wrapped anew then (see ``rewrapped``).

    Raises:
        RWalkError: The model's parameters are sharded over processes, and it has grown.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from rwalk.models import IncrementalClassifier
        >>> model = nn.Sequential(nn.Linear(4, 8), IncrementalClassifier(8))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> adapt_model(model, optimizer, SimpleNamespace(classes_in_this_experience=(0, 1, 2)))
        True
        >>> model(torch.ones(1, 4)).shape
        torch.Size([1, 3])
    """
    if not is_dynamic(model):
        return False
    before = parameters_of(model)
    adapt(model, experience)
    changed = follow_parameters(base_optimizer(optimizer), before, model)
    if changed and any(is_sharded(parameter) for parameter, _ in before.values()):
        raise RWalkError(
            f"{type(model).__name__} got new parameters after it was sharded over processes, and these would stay "
            "apart: build it with all of its outputs (heads='single' or 'masked'), or do not shard it"
        )
    return changed


def rewrapped(model: nn.Module) -> nn.Module:
    """A model whose parameters have changed, in a new DDP wrapper like its old one; other models as they are.

    DDP lays out its buckets when it is made, for the parameters that it finds then.

    Raises:
        RWalkError: DDP is inside ``torch.compile``, or has a communication hook, which cannot be moved.
    """
    if isinstance(compiled(model), DistributedDataParallel):
        raise RWalkError(
            "a model that grows cannot be wrapped as torch.compile(DDP(model)): compile it first, as in "
            "DDP(torch.compile(model))"
        )
    if not isinstance(model, DistributedDataParallel):
        return model
    if model._comm_hooks:
        raise RWalkError("a DDP model with a communication hook cannot grow: register no hook, or use heads='masked'")
    syncs = "forward_sync_buffers" if hasattr(model, "forward_sync_buffers") else "broadcast_buffers"  # older torch
    renewed = DistributedDataParallel(
        model.module,
        device_ids=model.device_ids,
        output_device=model.output_device,
        dim=model.dim,
        process_group=model.process_group,
        find_unused_parameters=model.find_unused_parameters,
        gradient_as_bucket_view=model.gradient_as_bucket_view,
        static_graph=model.static_graph,
        **{syncs: getattr(model, syncs)},
    )
    renewed.training = model.training  # the modules inside keep their own
    return renewed
