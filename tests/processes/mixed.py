"""Scenario: FSDP2's mixed precision, with the float64 twin of the method beside it."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from processes.problem import STEPS, Case, Run, settings, whole
from reference.naive import NaiveRWalk
from reference.problems import lists
from rwalk import RWalk

CASE = Case(settings(penalty="proximal", ewc_lambda=5.0), dtype=torch.float32)
POLICY = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def bfloat16(folder: Path) -> dict[str, Any]:
    """The twin is given the gradients and weights that the optimizer sees, put together from all shards."""
    run = Run(CASE, "fsdp", protected=False, mp_policy=POLICY)
    seen: dict[str, Any] = {}

    def before(*_: Any) -> None:
        seen["gradients"] = {name: p.grad.full_tensor() for name, p in run.model.named_parameters()}
        seen["weights"] = whole(run.model)

    run.optimizer.register_step_pre_hook(before)
    run.rwalk = RWalk(run.model, run.optimizer, CASE.config)
    outputs: set[torch.dtype] = set()
    run.model[0].register_forward_hook(lambda module, inputs, output: outputs.add(output.dtype))
    twin = NaiveRWalk(CASE.config)
    for task in range(2):
        for step in range(STEPS):
            run.train(task, start=step, stop=step + 1)
            twin.observe(*(lists(values) for values in (seen["gradients"], seen["weights"], whole(run.model))))
        run.rwalk.consolidate()
        twin.end_task(lists(whole(run.model)))
    kept = {str(view.dtype) for bucket in run.rwalk._tracker.buckets for view in bucket.flat.values()}
    return {
        "computed in": sorted(map(str, outputs)),
        "parameters": sorted({str(p.dtype) for p in run.model.parameters()}),
        "state": sorted(kept),
        "found": {kind: run.rwalk.importances(kind) for kind in ("penalty", "fisher", "score")},
        "twin": {"penalty": twin.importance, "fisher": twin.fisher, "score": twin.score},
    }
