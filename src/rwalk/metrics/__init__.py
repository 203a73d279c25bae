"""What is measured of a batch, and what follows from it for continual learning."""

from rwalk.metrics.functional import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    learning_accuracy,
)
from rwalk.metrics.matrix import AccuracyMatrix, MetricMatrix
from rwalk.metrics.names import metric_key

__all__ = [
    "AccuracyMatrix",
    "MetricMatrix",
    "average_accuracy",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "intransigence",
    "learning_accuracy",
    "metric_key",
]
