"""Scenario: the documentation's code, block by block, in several processes."""

import re
from pathlib import Path

import torch
from torch import distributed, nn

from processes.problem import Case, batch, network

PAGE = Path(__file__).parents[2] / "docs" / "integrations" / "distributed.md"
CASE = Case()


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for step in range(4):
        x, y = (part.chunk(distributed.get_world_size())[distributed.get_rank()] for part in batch(CASE, 0, step))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def page(folder: Path) -> list[dict]:
    """What RWalk's counters and penalties are after each block."""
    given = {"torch": torch, "distributed": distributed, "folder": folder, "train": train}
    names = {**given, "build_model": lambda: network(CASE.sizes, CASE.dtype)}
    found = []
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
        rwalk = names["rwalk"]
        found.append({"tasks": rwalk.tasks, "steps": rwalk.steps, "importances": rwalk.importances()})
    return found
