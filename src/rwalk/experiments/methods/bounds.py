"""Lower and upper bounds: no protection at all, and old data kept."""

from rwalk.experiments.methods.method import Method

__all__ = ["METHODS"]

METHODS = (
    Method("fine-tuning", "each experience as it comes, nothing against forgetting", rank=0),
    Method("joint", "all data so far, from scratch at each experience: the upper bound", data="joint", rank=90),
    Method("cumulative", "all data so far, going on from the last weights", data="all", rank=91),
)
