"""The weights that LoRA adapts: where they are, what moves them, and the base without its adapters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peft.tuners.lora import layer as lora
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from rwalk.core.names import canonical_name
from rwalk.core.sharding import is_sharded
from rwalk.core.state import arithmetic
from rwalk.errors import RWalkError

__all__ = ["AdaptedWeight", "Part", "adapted_weights", "base_alone"]

CONVOLUTIONS = tuple(getattr(lora, name) for name in ("Conv1d", "Conv2d", "Conv3d") if hasattr(lora, name))
KNOWN = (lora.Linear, lora.Embedding, *CONVOLUTIONS)
#: Ways to begin that take the adapter's first product out of the base, which is then no longer what was pretrained.
MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Part:
    """One adapter's share in the change of a weight, s B A.

    Attributes:
        left: B, in its own shape.
        right: A, in its own shape.
        scaling: s: alpha / r, or with rsLoRA alpha / √r.
    """

    left: Tensor
    right: Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """How many columns B has."""
        return self.right.shape[0]

    def factors(self) -> tuple[Tensor, Tensor]:
        """``s * B`` of shape (m, r) and A of shape (r, n), in float32 at least."""
        left, right = (factor.flatten(1).to(arithmetic(factor.dtype)) for factor in (self.left, self.right))
        return left * self.scaling, right


@dataclass(frozen=True, eq=False)
class AdaptedWeight:
    """A weight of the base that adapters change.

    Attributes:
        name: As the base calls it, without what PEFT puts into names.
        weight: The base's parameter.
        layer: PEFT's layer around it.
    """

    name: str
    weight: nn.Parameter
    layer: Any

    def active(self) -> list[Part]:
        """What the adapters that are on change; nothing of those that are off."""
        return [] if self.layer.disable_adapters else self.parts(self.layer.active_adapters)

    def parts(self, adapters: Sequence[str]) -> list[Part]:
        """What these adapters change, of those that are here."""
        embeds = isinstance(self.layer, lora.Embedding)
        lefts = self.layer.lora_embedding_B if embeds else self.layer.lora_B
        rights = self.layer.lora_embedding_A if embeds else self.layer.lora_A
        found = []
        for name in adapters:
            if name in rights:
                left, right = (lefts[name], rights[name]) if embeds else (lefts[name].weight, rights[name].weight)
                found.append(Part(left, right, float(self.layer.scaling[name])))
        return found

    @property
    def is_transposed(self) -> bool:
        """Whether the base keeps the transpose of B A: GPT-2's Conv1D and embeddings do."""
        return isinstance(self.layer, lora.Embedding) or bool(getattr(self.layer, "fan_in_fan_out", False))

    def matrix(self, values: Tensor) -> Tensor:
        """Values in the weight's shape, as B A has them: shape (m, n)."""
        return values.mT if self.is_transposed else values.flatten(1)

    def unfolded(self, matrix: Tensor) -> Tensor:
        """The way back, to the weight's shape."""
        return matrix.mT if self.is_transposed else matrix.view(self.weight.shape)


def adapted_weights(model: nn.Module) -> dict[str, AdaptedWeight]:
    """The weights of a model's base that LoRA adapts, by the base's own names.

    Raises:
        RWalkError: There is none; a layer's adapter is no plain LoRA, its base is quantised, sharded or trained itself,
            or the adapter's beginning was taken out of the base.
    """
    _refuse_ways_to_begin(model)
    found: dict[str, AdaptedWeight] = {}
    layers: dict[str, Any] = {p: module for p, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    for path, layer in layers.items():
        name = f"{_plain(path)}.weight"
        _refuse_layer(name, layer)
        found[name] = AdaptedWeight(name, layer.get_base_layer().weight, layer)
    if not found:
        raise RWalkError(
            "the model has no LoRA adapter (get_peft_model, or add_adapter with a LoraConfig): what is trained whole "
            "is protected by RWalk.protect"
        )
    return found


@contextmanager
def base_alone(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, adapters are off and these weights alone take gradients; afterwards all is as before, errors or not.

    Args:
        model: The model with its adapters.
        weights: Of its base.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    wrappers = [module for module in model.modules() if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper))]
    switched = [wrapper for wrapper in wrappers if not wrapper.disable_adapters]
    try:
        for wrapper in switched:
            wrapper.enable_adapters(False)
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for wrapper in switched:
            wrapper.enable_adapters(True)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _plain(path: str) -> str:
    """A module's path without what PEFT and wrappers put into it."""
    inside = f".{canonical_name(path)}".replace(".base_model.model.", ".").replace(".base_layer", "")
    return inside.removeprefix(".")


def _refuse_ways_to_begin(model: nn.Module) -> None:
    candidates = (getattr(module, "peft_config", None) for module in model.modules())
    configs: dict[str, Any] = next((found for found in candidates if isinstance(found, dict)), {})
    for adapter, config in configs.items():
        begins = getattr(config, "init_lora_weights", True)
        if isinstance(begins, str) and begins.lower().startswith(MOVES_BASE):
            raise RWalkError(
                f"init_lora_weights={begins!r} of adapter {adapter!r} takes the adapter's beginning out of the base, "
                "so that the base without it is not what was pretrained: take True, 'gaussian', 'orthogonal' or 'eva'"
            )


def _refuse_layer(name: str, layer: Any) -> None:
    if type(layer) not in KNOWN:
        raise RWalkError(
            f"{name} is adapted by {type(layer).__module__}.{type(layer).__name__}, whose change of the weight is not "
            "known to be s·B·A: expected LoRA on a linear layer, Conv1D, convolution or embedding that is not quantised"
        )
    variants = {**getattr(layer, "lora_variant", {}), **{k: "DoRA" for k, on in layer.use_dora.items() if on}}
    for adapter, variant in variants.items():
        called = variant if isinstance(variant, str) else type(variant).__name__
        raise RWalkError(
            f"adapter {adapter!r} of {name} is a variant of LoRA ({called}) whose change of the weight is not s·B·A "
            "(DoRA, for one, scales each row of the sum anew): train a plain LoraConfig"
        )
    biased = [adapter for adapter, on in getattr(layer, "lora_bias", {}).items() if on]
    if biased:
        raise RWalkError(
            f"adapter {biased[0]!r} of {name} has a bias, which changes the base beside B·A: lora_bias=False"
        )
    base = layer.get_base_layer()
    if getattr(base, "groups", 1) != 1:
        raise RWalkError(
            f"{name} is a convolution in {base.groups} groups, whose change is no product B·A: leave it out"
        )
    if not base.weight.is_floating_point():
        raise RWalkError(
            f"{name} is kept as {base.weight.dtype} (quantised), which has no gradient: take float weights"
        )
    if is_sharded(base.weight):
        raise RWalkError(f"{name} is sharded over processes: protect the model before it is sharded")
