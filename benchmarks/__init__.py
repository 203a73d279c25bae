"""What rwalk costs, measured beside its peers in one process. Each command is a module: `python -m benchmarks.NAME`."""
