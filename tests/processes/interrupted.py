"""A program that is killed in mid-training and started again: DDP and FSDP2 side by side, a checkpoint every few steps.

Run it: torchrun interrupted.py FOLDER [step at which the second process is killed]
"""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from processes.problem import STEPS, Case, Run

CASE = Case()
EVERY = 3
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def checkpoint(run: Run, path: Path, position: int) -> None:
    """Model, optimizer and RWalk in one file, which is complete or not there."""
    model, optimizer = get_state_dict(run.model, run.optimizer, options=WHOLE)
    content = {"model": model, "optimizer": optimizer, "rwalk": run.rwalk.state_dict(), "position": position}
    if distributed.get_rank() == 0:
        unfinished = path.with_suffix(".unfinished")
        torch.save(content, unfinished)
        unfinished.replace(path)


def restore(run: Run, path: Path) -> int:
    if not path.exists():
        return 0
    content = torch.load(path)
    states = {"model_state_dict": content["model"], "optim_state_dict": content["optimizer"]}
    set_state_dict(run.model, run.optimizer, options=WHOLE, **states)
    run.rwalk.load_state_dict(content["rwalk"])
    return content["position"]


def step(run: Run, position: int) -> None:
    """Two tasks and the beginning of a third, step by step."""
    run.train(position // STEPS, start=position % STEPS, stop=position % STEPS + 1)
    if (position + 1) % STEPS == 0:
        run.rwalk.consolidate()


def main(folder: Path, killed_at: int | None) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=30))
    runs = {engine: Run(CASE, engine) for engine in ("ddp", "fsdp")}
    starts = {engine: restore(run, folder / f"{engine}.pt") for engine, run in runs.items()}
    distributed.barrier()
    for position in range(min(starts.values()), 2 * STEPS + 2):
        for engine, run in runs.items():
            if engine == "fsdp" and position == killed_at and distributed.get_rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)  # the other process waits for its shards
            step(run, position)
            if (position + 1) % EVERY == 0:
                checkpoint(run, folder / f"{engine}.pt", position + 1)
    found = {"starts": starts, **{engine: run.results() for engine, run in runs.items()}}
    torch.save(found, folder / f"found-{distributed.get_rank()}.pt")
    distributed.barrier()  # neither takes its connections down while the other still uses them
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
