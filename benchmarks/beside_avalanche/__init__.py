"""The paper's split-MNIST protocols by rwalk and by Avalanche: ``python -m benchmarks.beside_avalanche``.

The figures compared are accuracies; what the two cost is compared elsewhere (``benchmarks.end_to_end``).
"""
