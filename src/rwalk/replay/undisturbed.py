"""Looking at a model without leaving a trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from rwalk.module_state import in_eval_mode

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode without gradients; afterwards it is as it was, also after an error.

    Put back are each module's mode, buffers that a forward pass wrote to or replaced, and torch's generators (the CPU's
    and those of the model's CUDA devices). Gradients are not touched. Compiled models run eagerly, because only then
    hooks that are new to them are called. What a forward pass keeps in plain attributes is not put back.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
        >>> with undisturbed(model):
        ...     model.training, model[1].training, model(torch.ones(3, 2)).requires_grad
        (False, False, False)
        >>> model.training, int(model[0].num_batches_tracked)
        (True, 0)
    """
    buffers = [
        (module, name, *_copied(buffer)) for module in model.modules() for name, buffer in module._buffers.items()
    ]
    tensors = (*model.parameters(), *model.buffers())
    devices = sorted({tensor.device.index for tensor in tensors if tensor.device.type == "cuda"})
    with torch.random.fork_rng(devices), _eagerly(), torch.no_grad(), in_eval_mode(model):
        try:
            yield
        finally:
            for module, name, buffer, content, version in buffers:
                if buffer is not None and content is not None and buffer._version != version:
                    buffer.copy_(content)
                module._buffers[name] = buffer


def _copied(buffer: Tensor | None) -> tuple[Tensor | None, Tensor | None, int]:
    return (None, None, 0) if buffer is None else (buffer, buffer.clone(), buffer._version)


def _eagerly() -> AbstractContextManager[object]:
    # Nothing can be compiled before this module is loaded, and loading it takes long.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
