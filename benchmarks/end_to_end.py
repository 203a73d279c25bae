"""A whole run: split MNIST with exemplars, by rwalk and by Avalanche, under one protocol."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks.command import Result, progress, run
from benchmarks.peers import why_not
from benchmarks.protocol import PER_CLASS, Protocol, Run, accuracy, bare, ours, theirs
from rwalk.errors import DataUnavailableError, MissingExtraError
from rwalk.streams import Benchmark, benchmark

DATA = Path("..", "shared", "data")
BARE = "plain loop"
SEEDS = 6


def measure(quick: bool) -> Result:
    """Time a whole run with replay and RWalk, evaluation after each experience included, by rwalk and by Avalanche."""
    result = Result()
    protocol = Protocol(_data(result))
    contenders: dict[str, Callable[[Protocol, int], Run]] = {BARE: bare, "rwalk": ours}
    reason = why_not("avalanche")
    if reason is None:
        contenders["avalanche"] = theirs
    else:
        result.note(reason)
    for seed in range(1 if quick else SEEDS):
        for name in sorted(contenders, reverse=seed % 2 == 0):
            progress(f"{name}, seed {seed}")
            training, total, model = contenders[name](protocol, seed)
            row = {"framework": name, "seed": seed, "seconds": total, "of_training": training}
            result.rows.append({**row, "average_accuracy": accuracy(model, protocol.data)})
    _compare(result)
    result.settings |= {name: value for name, value in vars(protocol).items() if name != "data"}
    result.settings |= {"benchmark": protocol.data.name, "exemplars_a_class": PER_CLASS}
    result.settings |= {"model": "mlp 256-256", "optimizer": "Adam, fused"}
    result.note("both see the same number of samples in every iteration: 20 remembered ones divide every memory evenly")
    result.note(f"{BARE}: the same numbers of samples, without RWalk, choice of exemplars, or records: it learns less")
    result.note("λ is the same for both; on held-out data it is within 0.3 points of the best of 0.1 to 100 for either")
    result.note("seconds: training and, after each experience, evaluation on all test data; accuracy is measured apart")
    return result


def _data(result: Result) -> Benchmark:
    if "RWALK_DATA_DIR" not in os.environ and (DATA / "mnist").is_dir():
        os.environ["RWALK_DATA_DIR"] = str(DATA.resolve())
    try:
        return benchmark("split-mnist")
    except (DataUnavailableError, MissingExtraError) as error:
        result.note(f"split-digits instead of split-mnist: {error}")
        return benchmark("split-digits")


def _compare(result: Result) -> None:
    def column(framework: str, name: str) -> list[float]:
        return [row[name] for row in result.rows if row["framework"] == framework]

    def times(slow: str, fast: str, name: str = "seconds") -> float:
        pairs = zip(column(slow, name), column(fast, name), strict=True)
        return statistics.median(one / other for one, other in pairs)

    for name in dict.fromkeys(row["framework"] for row in result.rows):
        result.settings[f"{name}_mean_accuracy"] = round(statistics.mean(column(name, "average_accuracy")), 4)
    result.ratios["rwalk_vs_plain"] = times("rwalk", BARE)
    if column("avalanche", "seconds"):
        result.ratios["avalanche_vs_plain"] = times("avalanche", BARE)
        result.ratios["times_faster"] = times("avalanche", "rwalk")
        result.ratios["times_faster_training"] = times("avalanche", "rwalk", "of_training")
        pairs = zip(column("rwalk", "average_accuracy"), column("avalanche", "average_accuracy"), strict=True)
        gained = [mine - other for mine, other in pairs]
        result.ratios["accuracy_gained"] = statistics.mean(gained)
        if len(gained) > 1:
            result.ratios["accuracy_gained_error"] = statistics.stdev(gained) / len(gained) ** 0.5


if __name__ == "__main__":
    run("end_to_end", measure)
