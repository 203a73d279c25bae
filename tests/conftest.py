"""What every test shares: one thread, and property tests that pick the same examples on every run."""

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("fixed", deadline=None, max_examples=100, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
