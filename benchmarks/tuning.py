"""Does ``rwalk tune`` find a good λ? What a race names on some seeds, beside every λ of a grid on the test data.

Split-MNIST, one head, 10 exemplars a class. The race was made on seeds 0 to 2; it is judged on others here.

Run it: python -m benchmarks.tuning --json benchmarks/results/tune.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rwalk.experiments import RunSpec, run_all
from rwalk.experiments.pool import carried_out
from rwalk.experiments.racing import Race
from rwalk.experiments.searching import Search, chosen_strength

__all__ = ["main"]

GRIDS: dict[str, tuple[float, ...]] = {
    "rwalk": (1.0, 3.0, 10.0, 30.0, 100.0),
    "ewc++": (100.0, 300.0, 1000.0, 3000.0, 10000.0),
}
KEEP = 10


def spec_of(method: str, strength: float, **settings: Any) -> RunSpec:
    """A run of the benchmark."""
    rwalk = {"ewc_lambda": strength}
    return RunSpec(benchmark="split-mnist", method=method, exemplars=10, heads="masked", rwalk=rwalk, **settings)


def searched(method: str, seeds: Sequence[int], folder: Path, jobs: int) -> dict[str, Any]:
    """The λ that races name, and what they cost."""
    how = Race(keep=KEEP)
    work = {
        str(seed): Search.of(spec_of(method, 1.0, validation=0.1, seed=seed), how, folder / "searches")
        for seed in seeds
    }
    found = {name: outcome.more for name, outcome in carried_out(work, jobs)}
    return {
        "chosen": chosen_strength(how, list(found.values())),
        "chosen_by_seed": {name: chosen_strength(how, [found[name]]) for name in work},
        "trainings": {name: found[name]["trainings"] for name in work},
        "trials": {name: found[name]["trials"] for name in work},
    }


def judged(method: str, strengths: Sequence[float], seeds: Sequence[int], folder: Path, jobs: int) -> dict[str, Any]:
    """Average accuracy on test data by λ, a figure a seed."""
    specs = {f"{strength:g}": spec_of(method, strength) for strength in dict.fromkeys(strengths)}
    found: dict[str, dict[int, float]] = {label: {} for label in specs}
    for outcome in run_all(specs, seeds, jobs=jobs, folder=folder / "runs"):
        if outcome.result is None:
            raise RuntimeError(f"{outcome.label}, seed {outcome.seed}: {outcome.error}")
        found[outcome.label][outcome.seed] = round(float(outcome.result.metrics["average_accuracy"] or 0.0), 4)
    return {label: [by_seed[seed] for seed in seeds] for label, by_seed in found.items()}


def verdict(chosen: float, by_strength: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The chosen λ beside the best of all that were run, means over seeds."""
    means = {label: round(fmean(values), 4) for label, values in by_strength.items()}
    best = max(means, key=means.__getitem__)
    return {"best": best, "means": means, "behind": round(means[best] - means[f"{chosen:g}"], 4)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--methods", nargs="+", default=list(GRIDS))
    parser.add_argument("--folder", type=Path, default=Path("runs/tuning"), help="what is finished is there")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="add to this file what was measured")
    chosen = parser.parse_args(arguments)
    for method in chosen.methods:
        found = searched(method, chosen.seeds, chosen.folder, chosen.jobs)
        print(method, json.dumps({key: value for key, value in found.items() if key != "trials"}), flush=True)
        strengths = [found["chosen"], *GRIDS[method]]
        found["accuracy"] = judged(method, strengths, chosen.seeds, chosen.folder, chosen.jobs)
        found |= verdict(found["chosen"], found["accuracy"])
        print(method, json.dumps({key: found[key] for key in ("best", "means", "behind")}), flush=True)
        if chosen.json:
            content = json.loads(chosen.json.read_text()) if chosen.json.exists() else {}
            content.setdefault("race", {})[method] = {"seeds": chosen.seeds, "keep": KEEP, **found}
            chosen.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
