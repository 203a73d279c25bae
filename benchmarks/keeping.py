"""The README's picture: a network learns A, then B, by fine-tuning and with RWalk; accuracy on both after each epoch.

Run it: python -m benchmarks.keeping --json benchmarks/results/keeping.json --svg docs/images/keeping.svg
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.plots import BLUE, ORANGE
from rwalk import RWalk

EXAMPLES = Path(__file__).parents[1] / "examples"
EPOCHS, SEEDS = 10, 5
METHODS = ("fine-tuning", "RWalk")
COLOURS = {"RWalk": BLUE, "fine-tuning": ORANGE}


def course(seed: int, method: str) -> list[tuple[float, float]]:
    """Accuracy on A and on B in %, before training and after each epoch; as ``examples/plain_pytorch.py`` trains."""
    from plain_pytorch import CONFIG
    from two_tasks import accuracy, network, two_tasks

    tasks = two_tasks(seed)
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rwalk = RWalk(model, optimizer, CONFIG) if method == "RWalk" else None

    def both() -> tuple[float, float]:
        return accuracy(model, tasks[0][1]), accuracy(model, tasks[1][1])

    found = [both()]
    for data, _ in tasks:
        for _ in range(EPOCHS):
            for images, labels in DataLoader(data, batch_size=32, shuffle=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
            found.append(both())
        if rwalk is not None:
            rwalk.consolidate()
    return found


def draw(result: dict[str, Any], target: Path) -> None:
    """A's accuracy while B is learned."""
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rwalk"})
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    epochs = range(2 * EPOCHS + 1)
    ends = {}
    for method in METHODS:
        values = torch.tensor(result["courses"][method])  # seeds, epochs, tasks
        for task, style in ((1, ":"), (0, "-")):
            mean, deviation = values[:, :, task].mean(0), values[:, :, task].std(0)
            axes.plot(epochs, mean, style, color=COLOURS[method], linewidth=2.2 if task == 0 else 1.4)
            if task == 0:
                axes.fill_between(epochs, mean - deviation, mean + deviation, color=COLOURS[method], alpha=0.18, lw=0)
            ends[method, task] = float(mean[-1])
    for method in METHODS:
        axes.annotate(
            f"A with {method}: {ends[method, 0]:.0f} %", (2 * EPOCHS, ends[method, 0]), xytext=(8, 0),
            textcoords="offset points", va="center", color=COLOURS[method], fontsize=10, annotation_clip=False,
        )  # fmt: skip
    axes.annotate(
        f"B (dotted): {ends['fine-tuning', 1]:.0f} and {ends['RWalk', 1]:.0f} %", (2 * EPOCHS, 100), xytext=(8, 2),
        textcoords="offset points", va="center", color="#555555", fontsize=9, annotation_clip=False,
    )  # fmt: skip
    axes.axvline(EPOCHS, color="#999999", linewidth=0.8)
    axes.text(EPOCHS / 2, 22, "learns A", ha="center", color="#555555")
    axes.text(1.5 * EPOCHS, 22, "learns B; no image of A is there", ha="center", color="#555555")
    axes.set(xlim=(0, 2 * EPOCHS), ylim=(0, 103), xlabel="epoch", ylabel="test accuracy in %")
    axes.set_xticks(range(0, 2 * EPOCHS + 1, 5))
    axes.set_title(
        f"RWalk alone keeps task A at {ends['RWalk', 0]:.0f} % where fine-tuning is left with "
        f"{ends['fine-tuning', 0]:.0f} %",
        loc="left", fontsize=11,
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Run, store, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(EXAMPLES))
    begin = perf_counter()
    result = {"courses": {method: [course(seed, method) for seed in range(SEEDS)] for method in METHODS}}
    result["seconds"] = perf_counter() - begin
    options.json.write_text(json.dumps(result) + "\n")
    draw(result, options.svg)
    for method, courses in result["courses"].items():
        last = torch.tensor(courses)[:, -1].mean(0).tolist()
        print(f"{method}: A after B {last[0]:.1f}, B {last[1]:.1f}")
    print(f"{result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
