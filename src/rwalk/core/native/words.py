"""Where the kernels for GPUs and the host look for what in the words that they share."""

from __future__ import annotations

__all__: list[str] = []  # imported as a whole

# A step's decisions; in the ledger too.
LIVE, PENDS, UPDATES, CLOSES, REOPENS, SEED, NONFINITE, DECISIONS = range(8)

# What is uploaded goes on with numbers (float64 bit for bit), and then with three arrays: addresses of parameters, of
# gradients, and rates.
STRENGTH, SCALE, DAMPING, FACTOR, LIMIT, HEAD = range(DECISIONS, DECISIONS + 6)

# The ledger goes on with what the device counts.
STEPS, TASK_STEPS, WINDOW_STEPS, SKIPPED, PENDING, OPEN, GENERATION, STALE, LEDGER = range(DECISIONS, DECISIONS + 9)
