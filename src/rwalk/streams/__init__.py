"""Data that keeps arriving: experiences, streams, scenarios, the catalog, and batches."""

from rwalk.streams.catalog import benchmark, benchmarks
from rwalk.streams.data import TensorData, labels_of
from rwalk.streams.experience import Benchmark, Experience, Stream, task_label_of
from rwalk.streams.loader import MixedLoader, TensorLoader, data_loader
from rwalk.streams.scenarios import class_incremental, permuted

__all__ = [
    "Benchmark",
    "Experience",
    "MixedLoader",
    "Stream",
    "TensorData",
    "TensorLoader",
    "benchmark",
    "benchmarks",
    "class_incremental",
    "data_loader",
    "labels_of",
    "permuted",
    "task_label_of",
]
