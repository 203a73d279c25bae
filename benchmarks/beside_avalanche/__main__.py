"""Carries the command out."""

from benchmarks.beside_avalanche.command import main

if __name__ == "__main__":
    main()
