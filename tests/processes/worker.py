"""One process of a launched job: runs scenarios, ``module.function`` each, and writes down what they found."""

import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import torch
from torch import distributed


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    for name in names:
        module, function = name.split(".")
        found = getattr(import_module(f"processes.{module}"), function)(folder)
        torch.save(found, folder / f"{name}-{distributed.get_rank()}.pt")
        distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
