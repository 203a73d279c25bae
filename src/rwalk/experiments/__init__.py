"""Runs: what one is, carrying it out, keeping what came of it."""

from rwalk.experiments.methods import METHODS, Method
from rwalk.experiments.runner import RunResult, run
from rwalk.experiments.spec import RunSpec, load_spec
from rwalk.experiments.store import read_result, write_result

__all__ = ["METHODS", "Method", "RunResult", "RunSpec", "load_spec", "read_result", "run", "write_result"]
