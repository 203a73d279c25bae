"""Streams of samples of any structure, and the shape of one input."""

import datasets
import numpy as np
import pytest
import torch

from rwalk.streams import blurry, class_incremental, data_loader, online, with_validation
from rwalk.streams.inputs import input_shape_of

LABELS = [index % 4 for index in range(40)]
KINDS = {  # how sample i with label y is made, and the shape of its input
    "pair": (lambda i, y: (torch.full((3, 2), float(i)), y), (3, 2)),
    "array": (lambda i, y: (np.full((3, 2), float(i), dtype=np.float32), y), (3, 2)),
    "triple": (lambda i, y: (torch.zeros(3), y, 0), (3,)),
    "number": (lambda i, y: (i, y), ()),
    "text": (lambda i, y: ("to be", y), ()),
    "dictionary": (lambda i, y: ({"ids": torch.zeros(3), "mask": torch.ones(3)}, y), ()),
    "tuple": (lambda i, y: ((torch.zeros(3), torch.zeros(2)), y), ()),
    "row": (lambda i, y: {"x": torch.zeros(3), "label": y}, (3,)),
    "row-of-several": (lambda i, y: {"ids": torch.zeros(3), "mask": torch.ones(3), "labels": y, "task_labels": 0}, ()),
    "row-of-text": (lambda i, y: {"text": "to be", "label": y}, ()),
}
MADE = {"split": class_incremental, "blurry": blurry}


@pytest.mark.parametrize("scenario", MADE)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_any_structure_are_dealt_out(kind, scenario):
    make, shape = KINDS[kind]
    samples = [make(index, label) for index, label in enumerate(LABELS)]
    made = MADE[scenario]("toy", samples, samples, 2)
    assert made.input_shape == shape
    assert [len(experience.dataset) for experience in made.train_stream] == [20, 20]
    assert [experience.classes_in_this_experience for experience in made.test_stream] == [(0, 1), (2, 3)]
    held = with_validation(made, 0.2)
    assert sum(len(experience.dataset) for experience in held.valid_stream) == 8
    arriving = online(held, samples=5)
    assert (arriving.input_shape, len(arriving.train_stream)) == (shape, 7)
    assert len(next(iter(data_loader(arriving.train_stream[0].dataset, 4, shuffle=False)))) >= 3


@pytest.mark.parametrize("scenario", MADE)
@pytest.mark.parametrize(("layout", "shape"), [("torch", (2,)), ("numpy", (2,)), (None, ())])
def test_a_table_is_dealt_out_by_its_labels(layout, shape, scenario):
    table = datasets.Dataset.from_dict({"x": [[float(i), 0.0] for i in range(40)], "label": LABELS})
    made = MADE[scenario]("toy", *[table.with_format(layout)] * 2, 2)
    assert (made.input_shape, made.n_classes) == (shape, 4)
    batch = next(iter(data_loader(made.test_stream[1].dataset, 40, shuffle=False)))
    assert sorted(batch["labels"].tolist()) == [2] * 10 + [3] * 10


def test_an_input_that_is_a_sample_by_itself_has_its_own_shape():
    assert input_shape_of(torch.zeros(5, 3, 2)) == (3, 2)
