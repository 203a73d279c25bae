"""A training template with hooks, and plugins for it."""

from rwalk.training.adaptation import adapt_model
from rwalk.training.clock import Clock, PeriodicEval
from rwalk.training.events import HOOKS, BasePlugin
from rwalk.training.plugins import (
    CheckpointPlugin,
    DiscriminantPlugin,
    EarlyStoppingPlugin,
    EvaluationPlugin,
    JudgedByExemplars,
    L2SPPlugin,
    LoggingPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    MASPlugin,
    NearestMeanPlugin,
    OptimizerResetPlugin,
    ReplayPlugin,
    RWalkPlugin,
    WeightAveragePlugin,
)
from rwalk.training.template import BaseTemplate, Naive, SupervisedTemplate

__all__ = [
    "HOOKS",
    "BasePlugin",
    "BaseTemplate",
    "CheckpointPlugin",
    "Clock",
    "DiscriminantPlugin",
    "EarlyStoppingPlugin",
    "EvaluationPlugin",
    "JudgedByExemplars",
    "L2SPPlugin",
    "LRSchedulerPlugin",
    "LoggingPlugin",
    "LwFPlugin",
    "MASPlugin",
    "Naive",
    "NearestMeanPlugin",
    "OptimizerResetPlugin",
    "PeriodicEval",
    "RWalkPlugin",
    "ReplayPlugin",
    "SupervisedTemplate",
    "WeightAveragePlugin",
    "adapt_model",
]
