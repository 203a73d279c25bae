"""The type of columns of lists, whose name has changed."""

import datasets

List = getattr(datasets, "List", datasets.Sequence)

__all__ = ["List"]
