"""The equations as machine code: one pass over memory for each half of a step, for parameters on the CPU."""
