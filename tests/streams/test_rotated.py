"""Rotated streams."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.streams import TensorData, rotated
from rwalk.streams.rotated import rotate


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_rotation(image, degrees):
    """Bilinear interpolation pixel by pixel, from the definition, with black outside."""
    height, width = image.shape
    turn = math.radians(degrees)
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            # the centre of the image is the origin, and y points upward
            x, y = column - (width - 1) / 2, (height - 1) / 2 - row
            x, y = math.cos(turn) * x + math.sin(turn) * y, -math.sin(turn) * x + math.cos(turn) * y
            source_column, source_row = x + (width - 1) / 2, (height - 1) / 2 - y
            left, top = math.floor(source_column), math.floor(source_row)
            for r in (top, top + 1):
                for c in (left, left + 1):
                    if 0 <= r < height and 0 <= c < width:
                        weight = (1 - abs(source_row - r)) * (1 - abs(source_column - c))
                        result[row, column] += weight * image[r, c]
    return result


@given(st.integers(1, 6), st.integers(1, 6), st.floats(-400, 400))
def test_a_rotation_is_what_the_definition_says_on_any_rectangle(height, width, degrees):
    image = images(height, width)
    expected = naive_rotation(image, degrees)
    assert torch.allclose(rotate(image.view(1, height, width), degrees)[0], expected, atol=1e-9)
    assert torch.allclose(rotate(image.expand(2, 3, -1, -1), degrees), expected.expand(2, 3, -1, -1), atol=1e-9)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_move_whole_pixels_counter_clockwise(quarters):
    x = images(2, 1, 5, 5).float()
    assert torch.allclose(rotate(x, 90.0 * quarters), torch.rot90(x, quarters, (2, 3)), atol=1e-5)


def test_no_turn_leaves_the_images_alone():
    x = images(2, 3, 3)
    assert rotate(x, 0.0) is x
    assert rotate(x, 720.0) is x


def data(seed=0, **options):
    return TensorData(images(4, 1, 5, 5, seed=seed).float(), torch.tensor([0, 1, 1, 0]), **options)


def views(stream):
    return [experience.dataset.batch(slice(None))[0] for experience in stream]


def test_all_angles_share_the_memory_of_the_data_and_keep_its_labels():
    train, test = data(), data(seed=1)
    made = rotated("toy", train, test, degrees=[0, 30.0, 90], task_labels=True)
    for stream, whole in ((made.train_stream, train), (made.test_stream, test)):
        assert {experience.dataset.x.data_ptr() for experience in stream} == {whole.x.data_ptr()}
        assert all(torch.equal(experience.dataset.targets, whole.targets) for experience in stream)
        for found, angle in zip(views(stream), (0, 30, 90), strict=True):
            assert torch.equal(found, rotate(whole.x, angle))
        assert [experience.task_label for experience in stream] == [0, 1, 2]
    assert (made.n_classes, made.input_shape) == (2, (1, 5, 5))


def test_a_transform_of_the_data_comes_before_the_rotation():
    found = views(rotated("toy", data(transform=torch.neg), data(transform=torch.neg), degrees=[45]).train_stream)
    assert torch.equal(found[0], rotate(-data().x, 45))


def test_angles_are_spread_evenly_or_drawn_by_the_seed():
    even = views(rotated("toy", data(), data(), 3).train_stream)
    assert all(torch.equal(found, rotate(data().x, angle)) for found, angle in zip(even, (0, 60, 120), strict=True))
    drawn = [views(rotated("toy", data(), data(), 3, seed=seed).train_stream) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0][0], data().x)
    for first, again, other in list(zip(*drawn, strict=True))[1:]:
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"n_experiences=None: expected at least 1 \(or give degrees\)"),
        ({"n_experiences": 0}, "n_experiences=0: expected at least 1"),
        ({"degrees": []}, r"degrees=\[\]: expected at least one angle"),
        ({"degrees": [0, math.inf]}, r"degrees=\[0, inf\]: expected at least one angle, all finite"),
        ({"degrees": [0, 1], "n_experiences": 3}, "n_experiences=3 and 2 degrees: give one of the two"),
    ],
)
def test_angles_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rotated("toy", data(), data(), **options)


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 64), torch.zeros(2, 1, 5, 5, dtype=torch.uint8), torch.zeros(2, 1, 1, 2, 2)]
)
def test_what_is_no_image_is_refused_with_its_shape_and_type(x):
    part = TensorData(x, torch.tensor([0, 1]))
    with pytest.raises(
        ValueError, match=r"toy has inputs of shape \(.*\) and dtype torch\..*: expected floating-point im"
    ):
        rotated("toy", part, part, 2)
