"""Runs and comparisons: what one is, carrying it out, keeping what came of it."""

from rwalk.experiments.comparison import Comparison, load_comparison
from rwalk.experiments.loading import load_spec
from rwalk.experiments.methods import METHODS, Method
from rwalk.experiments.pool import Outcome, run_all
from rwalk.experiments.references import last_reference, reference_for
from rwalk.experiments.results import RunResult, read_result, write_result
from rwalk.experiments.runner import run
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.summary import summarise

__all__ = [
    "METHODS",
    "Comparison",
    "Method",
    "Outcome",
    "RunResult",
    "RunSpec",
    "last_reference",
    "load_comparison",
    "load_spec",
    "read_result",
    "reference_for",
    "run",
    "run_all",
    "summarise",
    "write_result",
]
