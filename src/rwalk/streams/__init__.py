"""Data that keeps arriving: experiences, streams, scenarios, the catalog, and batches."""

from rwalk.streams.blurry import blurry
from rwalk.streams.catalog import benchmark, benchmarks, check_benchmark
from rwalk.streams.class_incremental import class_incremental
from rwalk.streams.data import NoClassLabelsError, TensorData, labels_of
from rwalk.streams.domains import dataset_incremental, domain_incremental, permuted
from rwalk.streams.experience import Benchmark, Experience, Stream, task_label_of, taught_after
from rwalk.streams.loader import TensorLoader, data_loader
from rwalk.streams.mixing import MixedLoader
from rwalk.streams.online import online
from rwalk.streams.rotated import rotated
from rwalk.streams.sources import load_data
from rwalk.streams.splits import Data
from rwalk.streams.validation import with_validation

__all__ = [
    "Benchmark",
    "Data",
    "Experience",
    "MixedLoader",
    "NoClassLabelsError",
    "Stream",
    "TensorData",
    "TensorLoader",
    "benchmark",
    "benchmarks",
    "blurry",
    "check_benchmark",
    "class_incremental",
    "data_loader",
    "dataset_incremental",
    "domain_incremental",
    "labels_of",
    "load_data",
    "online",
    "permuted",
    "rotated",
    "task_label_of",
    "taught_after",
    "with_validation",
]
