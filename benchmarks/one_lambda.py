"""Is there one λ for all? Ways to count importances, each under the same strengths on three pairs of tasks.

A way that made λ mean the same everywhere would have its best strength at the same place on digits, texts and LoRA, or
would at least have one that is nowhere far from the best. Pairs, held-out data and training are those of
``benchmarks.two_tasks``, on its development streams: nothing here confirms, it only looks for a way worth confirming.

Run it: python -m benchmarks.one_lambda --json benchmarks/results/one_lambda.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from benchmarks.choose_lambda import EXAMPLES
from benchmarks.pairs import learn
from benchmarks.studies import begun, command_line
from benchmarks.two_tasks import CHOSEN, DEVELOPMENT
from rwalk import RWalkConfig
from rwalk.core.likelihood import Kind
from rwalk.experiments.results import write_json

FISHER = {"terms": "fisher", "scaling": "none", "anchor_at": "last"}
#: By label: preset, changes to it, what the past's outputs are taken for (none: what they are), strengths.
WAYS: dict[str, tuple[str, dict[str, Any], Kind | None, Sequence[float]]] = {
    "shares, steps as the optimizer's (laplace)": ("laplace", {}, None, [10.0**k for k in range(1, 8)]),
    "shares, steps by the learning rate": ("laplace", {"proximal_rate": "lr"}, None, [10.0**k for k in range(3, 10)]),
    "over the largest (paper)": ("paper", {}, None, [10.0**k for k in range(-2, 5)]),
    "Fisher alone, in nats": ("laplace", FISHER, None, [10.0**k for k in range(-1, 8)]),
    "the same, steps by the learning rate": (
        "laplace",
        {**FISHER, "proximal_rate": "lr"},
        None,
        [10.0**k for k in range(-1, 8)],
    ),
    "sensitivity of the outputs": ("laplace", FISHER, "gaussian", [10.0**k for k in range(-4, 6)]),
}


def study(label: str) -> dict[str, Any]:
    """The mean of A and B on held-out data, for every strength on every pair."""
    preset, changes, likelihood, strengths = WAYS[label]
    found = {}
    for name in CHOSEN:
        found[name] = [
            fmean(fmean(learn(name, seed, config, held_out=True, likelihood=likelihood)) for seed in DEVELOPMENT)
            for config in (RWalkConfig.preset(preset, ewc_lambda=value, **changes) for value in strengths)
        ]
        print(f"{label}; {name}: " + ", ".join(f"{mean:.1f}" for mean in found[name]), flush=True)
    return {"label": label, "lambda": list(strengths), "held_out": found}


def common(row: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """The strength that is least behind where it is furthest behind, and how far it is behind on each pair."""
    best = {name: max(means) for name, means in row["held_out"].items()}
    behind = [{name: best[name] - row["held_out"][name][index] for name in best} for index in range(len(row["lambda"]))]
    chosen = min(range(len(behind)), key=lambda index: max(behind[index].values()))
    return row["lambda"][chosen], behind[chosen]


def markdown(found: dict[str, Any]) -> str:
    """A table of stored results: for each way the best on each pair, and what one strength for all loses."""
    lines = [
        "| importances | " + " | ".join(f"{name}: best, at λ" for name in CHOSEN) + " | one λ for all; it loses |",
        "|---|" + "---:|" * (len(CHOSEN) + 1),
    ]
    for row in found["rows"]:
        cells = []
        for name in CHOSEN:
            means = row["held_out"][name]
            cells.append(f"{max(means):.1f}, {row['lambda'][means.index(max(means))]:g}")
        value, behind = common(row)
        cells.append(f"{value:g}; " + ", ".join(f"{behind[name]:.1f}" for name in CHOSEN))
        lines.append(f"| {row['label']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options = command_line(parser, markdown)
    sys.path.insert(0, str(EXAMPLES))
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    found = {**begun(), "development": list(DEVELOPMENT), "rows": rows}
    for label in WAYS:
        rows.append(study(label))
        if options.json is not None:
            write_json(found, options.json)
    print(markdown(found))


if __name__ == "__main__":
    main()
