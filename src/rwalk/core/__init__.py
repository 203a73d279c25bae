"""The core: gradients and steps in, importances and a penalty out. Needs torch and xxhash only."""

from rwalk.core.config import RWalkConfig
from rwalk.core.files import inspect_state
from rwalk.core.regularizer import RWalk

__all__ = ["RWalk", "RWalkConfig", "inspect_state"]
