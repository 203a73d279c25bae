"""A whole run: split MNIST with exemplars, by rwalk and by Avalanche, under one protocol."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.command import Result, progress, run
from benchmarks.peers import why_not
from benchmarks.protocol import PER_CLASS, Batches, Protocol, Run, accuracy, attached, bare, ours, theirs
from rwalk import RWalkConfig
from rwalk.errors import DataUnavailableError, MissingExtraError
from rwalk.experiments.summary import paired_difference
from rwalk.streams import Benchmark, benchmark

DATA = Path("..", "shared", "data")
BARE, ATTACHED = "plain loop", "plain loop with RWalk"
SAME, FED = "rwalk, .avalanche()", "avalanche, rwalk's batches"
SEEDS, EVERY = 12, 4  # seeds; from one of them to the next with which plain loops run too


def measure(quick: bool) -> Result:
    """Time a whole run with replay and RWalk, evaluation after each experience included, by rwalk and by Avalanche."""
    result = Result()
    protocol = Protocol(_data(result))
    carry_out(result, protocol, range(1 if quick else SEEDS))
    compare(result)
    result.settings |= {name: value for name, value in vars(protocol).items() if name != "data"}
    result.settings |= {"benchmark": protocol.data.name, "exemplars_a_class": PER_CLASS}
    result.settings |= {"model": "mlp 256-256", "optimizer": "Adam, fused"}
    result.note("both see the same number of samples in every iteration: 20 remembered ones divide every memory evenly")
    result.note(f"{BARE}: the same numbers of samples, without RWalk, choice of exemplars, or records: it learns less")
    result.note("λ is the same for both; on held-out data it is within 0.3 points of the best of 0.1 to 100 for either")
    result.note("seconds: training and, after each experience, evaluation on all test data; accuracy is measured apart")
    result.note("accuracy_gained: rwalk less avalanche, each on batches of its own; low and high: the 95 % interval")
    result.note(
        f"same_batches: {SAME} less {FED}, by Avalanche's windows; default_windows: rwalk less {FED}, by windows that "
        "begin with each experience"
    )
    return result


def carry_out(result: Result, protocol: Protocol, seeds: Iterable[int]) -> None:
    """Every contender with every seed, in turns; a row for each."""
    timed: dict[str, Callable[[Protocol, int], Run]] = {BARE: bare, ATTACHED: attached, "rwalk": ours}
    reason = why_not("avalanche")
    if reason is None:
        timed["avalanche"] = theirs
    else:
        result.note(reason)
    for seed in seeds:
        judged = timed.keys() & {"rwalk", "avalanche"}  # whose accuracy is compared
        for name in sorted(judged if seed % EVERY else timed, reverse=seed % (2 * EVERY) == 0):
            progress(f"{name}, seed {seed}")
            training, total, model = timed[name](protocol, seed)
            row = {"framework": name, "seed": seed, "seconds": total, "of_training": training}
            result.rows.append({**row, "average_accuracy": accuracy(model, protocol.data)})
        if reason is None:
            batches: Batches = []
            progress(f"the same batches, seed {seed}")
            for name, (_, _, model) in {
                SAME: ours(protocol, seed, RWalkConfig.avalanche(), batches),
                FED: theirs(protocol, seed, batches),
            }.items():
                row = {"framework": name, "seed": seed, "average_accuracy": accuracy(model, protocol.data)}
                result.rows.append(row)


def _data(result: Result) -> Benchmark:
    if "RWALK_DATA_DIR" not in os.environ and (DATA / "mnist").is_dir():
        os.environ["RWALK_DATA_DIR"] = str(DATA.resolve())
    try:
        return benchmark("split-mnist")
    except (DataUnavailableError, MissingExtraError) as error:
        result.note(f"split-digits instead of split-mnist: {error}")
        return benchmark("split-digits")


def compare(result: Result) -> None:
    """Means, ratios of times formed within a seed, and differences of accuracies with their intervals."""

    def column(framework: str, name: str) -> dict[int, float]:
        return {row["seed"]: row[name] for row in result.rows if row["framework"] == framework}

    def pairs(first: str, second: str, name: str) -> list[tuple[float, float]]:
        one, other = column(first, name), column(second, name)
        return [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]

    def times(slow: str, fast: str, name: str = "seconds") -> float:
        return statistics.median(one / other for one, other in pairs(slow, fast, name))

    def gained(key: str, first: str, second: str) -> None:
        mine, others = zip(*pairs(first, second, "average_accuracy"), strict=True)
        difference = paired_difference(mine, others)
        result.ratios[key] = difference.mean
        if difference.low is not None and difference.high is not None:
            result.ratios |= {f"{key}_low": difference.low, f"{key}_high": difference.high}

    for name in dict.fromkeys(row["framework"] for row in result.rows):
        result.settings[f"{name}_mean_accuracy"] = round(statistics.mean(column(name, "average_accuracy").values()), 4)
    result.ratios["rwalk_vs_plain"] = times("rwalk", BARE)
    result.ratios["rwalk_vs_attached"] = times("rwalk", ATTACHED)
    if column("avalanche", "average_accuracy"):
        result.ratios["avalanche_vs_plain"] = times("avalanche", BARE)
        result.ratios["times_faster"] = times("avalanche", "rwalk")
        result.ratios["times_faster_training"] = times("avalanche", "rwalk", "of_training")
        result.ratios["of_what_a_plain_loop_reaches"] = times(BARE, "rwalk")
        result.ratios["of_what_a_plain_loop_with_rwalk_reaches"] = times(ATTACHED, "rwalk")
        gained("accuracy_gained", "rwalk", "avalanche")
        gained("same_batches", SAME, FED)
        gained("default_windows", "rwalk", FED)


if __name__ == "__main__":
    run("end_to_end", measure)
