"""What both sides follow: a run of a published table, and what Avalanche's plugins cannot do of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.beside_avalanche.learning import by_avalanche, by_rwalk, by_rwalk_in_passes
from benchmarks.beside_avalanche.remembered import differences, same_sampler
from rwalk.experiments.loading import build_spec, merged
from rwalk.experiments.reproduce import load_table
from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix
from rwalk.streams import Benchmark

__all__ = ["AVALANCHE", "PROTOCOLS", "RESTRICTED", "RWALK", "Contender", "Protocol", "contenders"]

RWALK, AVALANCHE = "rwalk", "Avalanche"
RESTRICTED = "rwalk, Avalanche's replay settings"


@dataclass(frozen=True)
class Protocol:
    """A run of a published table.

    Attributes:
        name: What it is called here.
        table: The table.
        run: Its label there.
    """

    name: str
    table: str
    run: str

    def spec(self, changes: Mapping[str, Any], *, quick: bool = False) -> RunSpec:
        """Its settings, with changes.

        Raises:
            ValueError: The changes make no spec, or hold data out.
        """
        table = load_table(self.table, quick=quick)
        spec = build_spec(merged(merged(table.base, table.runs[self.run]), changes))
        if spec.validation:
            raise ValueError(f"validation={spec.validation}: λ is chosen on held-out data here anyway; leave it out")
        return spec


PROTOCOLS = (
    Protocol("single-head", "eccv2018-mnist-singlehead", "RWalk-S"),
    Protocol("multi-head", "eccv2018-mnist-multihead", "RWalk"),
)


@dataclass(frozen=True)
class Contender:
    """One row of the comparison.

    Attributes:
        label: What it is called.
        spec: What it does.
        learn: Does it.
    """

    label: str
    spec: RunSpec
    learn: Callable[[RunSpec], AccuracyMatrix]


def contenders(spec: RunSpec, data: Benchmark) -> list[Contender]:
    """rwalk, rwalk with Avalanche's replay where that differs, and Avalanche.

    Args:
        spec: What rwalk does; its settings of Riemannian Walk that Avalanche has too are given to Avalanche.
        data: Its streams.
    """
    sampler: dict[str, Any] = {} if same_sampler(spec) else {"sampler": "uniform", "sampler_layer": None}
    config = spec.rwalk_config
    shared = {name: getattr(config, name) for name in ("ewc_lambda", "ewc_alpha", "delta_t")}
    found = [Contender(RWALK, spec, by_rwalk)]
    if differences(spec, data):
        found.append(Contender(RESTRICTED, spec.model_copy(update=sampler), by_rwalk_in_passes))
    theirs = spec.model_copy(update={**sampler, "method": "rwalk-avalanche", "rwalk": shared})
    return [*found, Contender(AVALANCHE, theirs, by_avalanche)]
