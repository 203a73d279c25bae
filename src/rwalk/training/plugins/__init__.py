"""What can be plugged into a strategy."""

from rwalk.training.plugins.checkpoints import CheckpointPlugin
from rwalk.training.plugins.discriminant import DiscriminantPlugin
from rwalk.training.plugins.early_stopping import EarlyStoppingPlugin
from rwalk.training.plugins.evaluation import EvaluationPlugin
from rwalk.training.plugins.judging import JudgedByExemplars
from rwalk.training.plugins.l2_sp import L2SPPlugin
from rwalk.training.plugins.logs import LoggingPlugin
from rwalk.training.plugins.lr_scheduling import LRSchedulerPlugin
from rwalk.training.plugins.lwf import LwFPlugin
from rwalk.training.plugins.mas import MASPlugin
from rwalk.training.plugins.nearest_mean import NearestMeanPlugin
from rwalk.training.plugins.optimizer_reset import OptimizerResetPlugin
from rwalk.training.plugins.replay import ReplayPlugin
from rwalk.training.plugins.rwalk import RWalkPlugin
from rwalk.training.plugins.weight_average import WeightAveragePlugin

__all__ = [
    "CheckpointPlugin",
    "DiscriminantPlugin",
    "EarlyStoppingPlugin",
    "EvaluationPlugin",
    "JudgedByExemplars",
    "L2SPPlugin",
    "LRSchedulerPlugin",
    "LoggingPlugin",
    "LwFPlugin",
    "MASPlugin",
    "NearestMeanPlugin",
    "OptimizerResetPlugin",
    "RWalkPlugin",
    "ReplayPlugin",
    "WeightAveragePlugin",
]
