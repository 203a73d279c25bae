"""The ways of training that every engine has to agree on."""

import torch

from processes.problem import Case, settings
from rwalk import RWalkConfig

PRESETS = {
    name: Case(RWalkConfig.preset(name, **{"ewc_lambda": 0.5, "ewc_alpha": 0.5, **changes}))
    for name, changes in {
        "paper": {"delta_t": 3},
        "avalanche": {"delta_t": 3},
        "agem": {"delta_t": 3, "fisher_every": 2},
        "capymoa": {"delta_t": 3},
        "ewc_plus_plus": {},
        "path_integral": {},
    }.items()
}
ADAMW = {"optimizer": torch.optim.AdamW, "options": (("lr", 0.01), ("fused", True))}

CASES = {
    **PRESETS,
    "float32": Case(dtype=torch.float32),
    "eager": Case(settings(backend="eager")),
    "proximal": Case(settings(penalty="proximal", ewc_lambda=20.0)),
    "relative damping": Case(settings(damping_scale="relative")),
    "windows of one step": Case(settings(delta_t=1)),
    "excluding": Case(settings(exclude=("2.*",), damping_scale="relative")),
    "frozen layer": Case(frozen=2),
    "clipping": Case(clip=0.1),
    "accumulation": Case(microbatches=2),
    "fused AdamW": Case(settings(penalty="proximal"), **ADAMW),
    "loss scaling": Case(scaler=True),
    "shards of nothing": Case(settings(damping_scale="relative"), sizes=(6, 2)),
}
#: Those that take no notice of how many processes there are.
ONCE = ("eager", "windows of one step", "frozen layer", "accumulation", "loss scaling")
#: In float64, what is left is rounding, amplified by training.
TOLERANCES = {"float32": 1e-5}
TOLERANCE = 1e-9

#: Those that need more than maxima over all processes, for engines that keep some shards several times.
SUMS = ("paper", "relative damping", "proximal")
