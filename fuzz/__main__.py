"""The command: ``python -m fuzz --cases 20000``."""

from __future__ import annotations

import argparse
import sys
import time

from fuzz import TARGETS
from fuzz.driver import hunt_apart

__all__ = ["main"]


def main() -> int:
    """Run the targets asked for; the exit status is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Mutate what rwalk reads, and watch it.")
    parser.add_argument("--cases", type=int, default=1000, metavar="N", help="cases of each target")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="I", help="a single case, by its number")
    chosen = parser.parse_args()
    cases = range(chosen.cases) if chosen.only is None else range(chosen.only, chosen.only + 1)
    found = 0
    for name in chosen.target or TARGETS:
        began = time.perf_counter()
        report = hunt_apart(name, cases, chosen.seed)
        found += len(report.findings)
        done = sum(report.endings.values()) + len(report.findings)
        print(f"{name}: {done} cases, {len(report.findings)} findings, {time.perf_counter() - began:.0f} s", end="")
        print(f", the slowest {report.slowest:.2f} s")
        for ending, count in report.endings.most_common():
            print(f"  {count:7d}  {ending}")
        for index, ending in report.findings:
            print(f"  FOUND: --target {name} --seed {chosen.seed} --only {index}: {ending}")
        sys.stdout.flush()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
