"""Runs that take a moment, for the tests of experiments."""

from rwalk.experiments import RunSpec

SMALL = {"benchmark": "split-digits", "epochs": 1, "n_experiences": 3, "hidden": (16,), "batch_size": 64}


def small(method="rwalk", **settings):
    """A spec of a short run; what is given wins."""
    return RunSpec(**{**SMALL, "method": method, **settings})
