"""The equations as machine code: one pass over memory for a step, for parameters on the CPU."""
