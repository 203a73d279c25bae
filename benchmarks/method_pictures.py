"""The pictures of docs/pictures.md, each from a real run: two weights, the pixels of digits, and what λ does.

Run it: python -m benchmarks.method_pictures --json benchmarks/results/method_pictures.json --folder docs/images
With --draw-only the stored figures are drawn again. Two to three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.plots import BLUE, ORANGE
from rwalk import RWalk, RWalkConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
GREY = "#555555"
#: Two tasks with two weights each: where the loss is least, and how steep it is along both axes.
TASK_A = (torch.tensor([1.0, 1.0]), torch.tensor([4.0, 0.08]))
TASK_B = (torch.tensor([-1.0, -1.0]), torch.tensor([0.5, 1.0]))
STRENGTHS, SEEDS, EPOCHS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0), 3, 10


def loss(weights: Tensor, task: tuple[Tensor, Tensor]) -> Tensor:
    """½ Σ steepness · (θ − least)², over the last dimension."""
    least, steep = task
    return 0.5 * (steep * (weights - least).square()).sum(-1)


def two_weights(ewc_lambda: float) -> dict[str, Any]:
    """Learn A, then B, from noisy gradients; where the weights went, and what RWalk found."""
    torch.manual_seed(0)
    module = nn.Module()
    module.theta = nn.Parameter(torch.tensor([-1.2, 0.2]))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    rwalk = RWalk(module, optimizer, RWalkConfig(ewc_lambda=ewc_lambda, ewc_alpha=0.01, alpha_warmup=True))
    paths, gradients = [], []
    for task in (TASK_A, TASK_B):
        path = [module.theta.tolist()]
        for _ in range(250):
            optimizer.zero_grad()
            noise = 0.3 * torch.randn(2) * task[1].sqrt()
            (loss(module.theta, task) + (noise * module.theta).sum()).backward()
            gradients.append(module.theta.grad.tolist())
            optimizer.step()
            path.append(module.theta.tolist())
        paths.append(path)
        rwalk.consolidate()
        if task is TASK_A:
            importance = {kind: rwalk.importances(kind)["theta"].tolist() for kind in ("penalty", "fisher", "score")}
    return {"paths": paths, "gradients": gradients, "importance": importance}


def learn(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> None:
    """The loop of ``examples/plain_pytorch.py``."""
    for _ in range(EPOCHS):
        for images, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def digits(seed: int, ewc_lambda: float) -> dict[str, Any]:
    """A, then B; accuracies in %, and by pixel the importances after A, each largest 1."""
    from plain_pytorch import CONFIG
    from two_tasks import accuracy, network, two_tasks

    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rwalk = RWalk(model, optimizer, CONFIG.replace(ewc_lambda=ewc_lambda))
    learn(model, optimizer, train_a)
    rwalk.consolidate()
    pixels = {}
    for kind in ("fisher", "score"):
        found = rwalk.importances(kind)["0.weight"].clamp(min=0).sum(0)
        pixels[kind] = (found / found.max()).tolist()
    mean = train_a.tensors[0].mean(0)
    pixels["mean image"] = (mean / mean.max()).tolist()
    learn(model, optimizer, train_b)
    return {"a": accuracy(model, test_a), "b": accuracy(model, test_b), "pixels": pixels}


def measure() -> dict[str, Any]:
    """All runs."""
    sys.path.insert(0, str(EXAMPLES))
    begin = perf_counter()
    runs = {str(strength): [digits(seed, strength) for seed in range(SEEDS)] for strength in STRENGTHS}
    response = {strength: [[run["a"], run["b"]] for run in of] for strength, of in runs.items()}
    return {
        "two_weights": {str(strength): two_weights(strength) for strength in (0.0, 2.0)},
        "response": response,
        "pixels": runs[str(STRENGTHS[0])][0]["pixels"],
        "seconds": round(perf_counter() - begin, 1),
    }


def draw_valleys(result: dict[str, Any], pyplot: Any) -> Any:
    """Both losses over two weights, and the ways through them."""
    figure, axes = pyplot.subplots(figsize=(8, 4.6), layout="constrained")
    across, up = torch.linspace(-1.7, 1.9, 160), torch.linspace(-1.6, 1.7, 160)
    grid = torch.stack(torch.meshgrid(across, up, indexing="xy"), dim=-1)
    for task, colour, levels in (
        (TASK_A, BLUE, (0.02, 0.08, 0.2, 0.5, 1, 2)),
        (TASK_B, ORANGE, (0.05, 0.2, 0.5, 1, 2)),
    ):
        axes.contour(across, up, loss(grid, task), levels=levels, colors=colour, linewidths=0.9, alpha=0.55)
    free, held = (torch.tensor(result["two_weights"][key]["paths"]) for key in ("0.0", "2.0"))
    axes.plot(*free[0].T, color=GREY, lw=1.6)
    axes.plot(*free[1].T, color=ORANGE, lw=1.8)
    axes.plot(*held[1].T, color=BLUE, lw=2.2)
    anchor, ends = held[1][0], (free[1][-1], held[1][-1])
    axes.plot(*anchor, "o", color="black", ms=6)
    for place, colour in zip(ends, (ORANGE, BLUE), strict=True):
        axes.plot(*place, "o", color=colour, ms=7)
    write = {"textcoords": "offset points", "fontsize": 10}
    axes.annotate("learns A", free[0][0], xytext=(0, 10), color=GREY, **write)
    axes.annotate("anchor θ*:\nA is learned", anchor, xytext=(14, 6), color="black", **write)
    a_free, a_held = (float(loss(end, TASK_A)) for end in ends)
    b_free, b_held = (float(loss(end, TASK_B)) for end in ends)
    free_end, held_end = (f"loss of A {a:.1f}, of B {b:.1f}" for a, b in ((a_free, b_free), (a_held, b_held)))
    axes.annotate(f"fine-tuning on B\n{free_end}", ends[0], xytext=(12, -26), color=ORANGE, **write)
    axes.annotate(f"RWalk on B\n{held_end}", ends[1], xytext=(14, -14), color=BLUE, **write)
    axes.text(1.12, 1.5, "A: steep across,\nflat along", color=BLUE, fontsize=10, va="top")
    axes.set(xlabel="weight 1", ylabel="weight 2", xlim=(-1.7, 1.9), ylim=(-1.6, 1.7))
    axes.set_title("B is learned along the direction that A does not mind", loc="left", fontsize=11)
    return figure


def draw_score(result: dict[str, Any], pyplot: Any) -> Any:
    """One window's loss change: gradient over the weight's way."""
    run = result["two_weights"]["0.0"]
    path, slopes = torch.tensor(run["paths"][0]), torch.tensor(run["gradients"])
    figure, all_axes = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
    for weight, axes in enumerate(all_axes):
        steps = 40
        at, slope = path[: steps + 1, weight], slopes[:steps, weight]
        change = float(-(slope * at.diff()).sum())
        for left, right, height in zip(at[:-1], at[1:], -slope, strict=True):
            axes.fill_between(
                [left, right], 0, height, color=BLUE if (right - left) * height > 0 else ORANGE, alpha=0.5, lw=0
            )
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set_title(f"weight {weight + 1}: the area is {change:.2f}", loc="left", fontsize=11)
        axes.set(xlabel="where the weight is, step by step")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("minus the gradient")
    return figure


def draw_pixels(result: dict[str, Any], pyplot: Any) -> Any:
    """Which pixels' weights matter."""
    titles = {"mean image": "mean digit", "fisher": "Fisher F", "score": "path score s"}
    figure, all_axes = pyplot.subplots(1, 3, figsize=(8, 3), layout="constrained")
    for axes, (name, title) in zip(all_axes, titles.items(), strict=True):
        image = axes.imshow(torch.tensor(result["pixels"][name]).view(8, 8), cmap="cividis", vmin=0, vmax=1)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=all_axes, label="share of the largest", shrink=0.8)
    return figure


def draw_response(result: dict[str, Any], pyplot: Any) -> Any:
    """Accuracy on A and B by strength."""
    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    values = torch.tensor([result["response"][str(strength)] for strength in STRENGTHS])  # strengths, seeds, tasks
    places = [math.log10(strength) if strength else -2.2 for strength in STRENGTHS]
    for task, colour, name in ((0, BLUE, "A, learned first"), (1, ORANGE, "B, learned second")):
        mean, low, high = values[:, :, task].mean(1), values[:, :, task].amin(1), values[:, :, task].amax(1)
        axes.plot(places, mean, "o-", color=colour, lw=2)
        axes.fill_between(places, low, high, color=colour, alpha=0.18, lw=0)
        beside = {"xytext": (8, 6 - 12 * task), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        axes.annotate(name, (places[-1], mean[-1]), color=colour, **beside)
    best = int(values.mean((1, 2)).argmax())
    axes.axvline(places[best], color="#999999", lw=0.8, zorder=0)
    axes.text(places[best] + 0.05, 42, f"best mean: λ {STRENGTHS[best]:g}", color=GREY)
    axes.set_xticks(places, [f"{strength:g}" for strength in STRENGTHS])
    axes.set(xlabel="λ", ylabel="test accuracy in %", ylim=(40, 101))
    free, held = (values[place].mean(0).tolist() for place in (0, best))
    title = f"λ {STRENGTHS[best]:g} keeps A at {held[0]:.0f} % instead of {free[0]:.0f}; more λ costs B"
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


DRAWINGS = {"valleys": draw_valleys, "score": draw_score, "pixels": draw_pixels, "response": draw_response}


def main() -> None:
    """Measure, store, draw."""
    from matplotlib import pyplot

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--draw-only", action="store_true")
    options = parser.parse_args()
    if not options.draw_only:
        options.json.write_text(json.dumps(measure()) + "\n")
    result = json.loads(options.json.read_text())
    pyplot.switch_backend("agg")
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "rwalk", "figure.facecolor": "white"})
    for name, drawing in DRAWINGS.items():
        drawing(result, pyplot).savefig(options.folder / f"method_{name}.svg", metadata={"Date": None})
    for strength, runs in result["response"].items():
        a, b = torch.tensor(runs).mean(0).tolist()
        print(f"λ {strength}: A {a:.1f}, B {b:.1f}")
    for strength, run in result["two_weights"].items():
        print(strength, run["importance"], run["paths"][1][-1])
    print(f"{result['seconds']} s")


if __name__ == "__main__":
    main()
