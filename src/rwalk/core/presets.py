"""Settings of published codes, and of methods made of the same core, by name: where they differ from the paper's."""

from __future__ import annotations

from typing import Any

__all__ = ["PRESETS"]

#: Published variants of Riemannian Walk, as settings that differ from the defaults. Where a code named here has a fault
#: that is no choice (gradients in eval mode, NaN from 0/0), the preset computes what that code means.
PRESETS: dict[str, dict[str, Any]] = {
    # The equations of arXiv:1801.10112; what they leave open is as in the defaults.
    "paper": {},
    # avalanche-lib 0.6.0: windows follow the run's iteration count, and none is scored before it is full.
    "avalanche": {"window_phase": "run", "unfinished": "carry", "damping": "machine"},
    # FACIL e09d2c8: the whole task is one window, Fisher from an extra pass over its data, nothing scaled.
    "facil": {
        "ewc_lambda": 1.0,
        "ewc_alpha": 0.5,
        "delta_t": None,
        "fisher_source": "loader",
        "fisher_start": "zero",
        "distance_factor": 1.0,
        "damping": 0.1,
        "rectify": "task",
        "score_average": "mean_from_zero",
        "scaling": "none",
    },
    # facebookresearch/agem 4542149 on MNIST: squared gradients of a whole task (a sum there; min-max takes the number
    # away), Fisher from before the window, 1.5 old + 0.5 new.
    "agem": {
        "ewc_lambda": 1.0,
        "ewc_alpha": 0.0,
        "alpha_warmup": True,
        "fisher_boundary": "reset",
        "fisher_in_score": "window_start",
        "distance_factor": 1.0,
        "damping": 1e-3,
        "rectify": "window",
        "unfinished": "drop",
        "score_average": "accumulate",
        "scaling": "minmax",
    },
    # CapyMOA 095caba: Fisher from zero in each task, half the penalty.
    "capymoa": {"fisher_start": "zero", "fisher_boundary": "reset", "penalty_factor": 0.5},
    # Chaudhry et al. 2018, Section 4.1: without the score.
    "ewc_plus_plus": {"terms": "fisher"},
    # Zenke et al. 2017: without the Fisher.
    "path_integral": {
        "delta_t": None,
        "distance": "euclidean",
        "distance_factor": 1.0,
        "damping": 1e-3,
        "rectify": "task",
        "score_average": "sum",
        "scaling": "none",
        "terms": "score",
    },
    # Not published: docs/laboratory.md derives each setting and says what it brings.
    "laplace": {
        "ewc_lambda": 4000.0,
        "delta_t": None,
        "fisher_source": "samples",
        "fisher_samples": 1000,
        "distance": "euclidean",
        "distance_factor": 1.0,
        "damping": 1e-3,
        "rectify": "task",
        "score_average": "latest",
        "scaling": "sum",
        "combine": "mean",
        "anchors": "latest",
        "anchor_at": "average",
        "penalty": "proximal",
        "proximal_rate": "optimizer",
    },
}
