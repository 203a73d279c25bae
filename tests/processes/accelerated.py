"""A script for ``accelerate launch``: trains with a checkpoint in mid-window, then goes on from it once more.

Run it: accelerate launch accelerated.py FOLDER
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from processes.problem import STEPS, Case, batch, network
from rwalk.integrations.accelerate import prepare_rwalk

CASE = Case()
PAUSE = 4


class Script:
    def __init__(self) -> None:
        self.accelerator = Accelerator(cpu=True)
        model = network(CASE.sizes, CASE.dtype)
        optimizer = torch.optim.SGD(model.parameters(), **dict(CASE.options))
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.rwalk = prepare_rwalk(self.accelerator, self.model, self.optimizer, CASE.config)

    def train(self, task: int, start: int = 0, stop: int = STEPS) -> None:
        xs, ys = zip(*(batch(CASE, task, step) for step in range(start, stop)), strict=True)
        data = TensorDataset(torch.cat(xs), torch.cat(ys))
        each = len(xs[0]) // self.accelerator.num_processes
        for x, y in self.accelerator.prepare(DataLoader(data, batch_size=each)):
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(nn.functional.mse_loss(self.model(x), y))
                self.optimizer.step()
                self.optimizer.zero_grad()

    def go_on(self) -> dict:
        self.train(1, start=PAUSE)
        self.rwalk.consolidate()
        self.train(2, stop=2)
        weights = {name: p.detach().clone() for name, p in self.accelerator.unwrap_model(self.model).named_parameters()}
        return {"weights": weights, "state": self.rwalk.state_dict(), "penalty": self.rwalk.penalty().detach()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    first = Script()
    first.train(0)
    first.rwalk.consolidate()
    first.train(1, stop=PAUSE)
    first.accelerator.save_state(folder / "checkpoint")
    without_a_break = first.go_on()
    first.accelerator.wait_for_everyone()
    second = Script()
    second.accelerator.load_state(folder / "checkpoint")
    found = {
        "processes": second.accelerator.num_processes,
        "wrapper": type(second.model).__name__,
        "without a break": without_a_break,
        "from the checkpoint": second.go_on(),
    }
    torch.save(found, folder / f"found-{second.accelerator.process_index}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
