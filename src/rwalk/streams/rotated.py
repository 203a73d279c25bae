"""A stream of the same images, each time turned by another angle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from rwalk.streams.data import TensorData
from rwalk.streams.domains import views
from rwalk.streams.experience import Benchmark
from rwalk.streams.splits import Data

__all__ = ["rotate", "rotated"]

RANGE = 180.0  # degrees over which angles are spread when none are given


def rotated(
    name: str,
    train: TensorData,
    test: TensorData,
    n_experiences: int | None = None,
    *,
    degrees: Sequence[float] | None = None,
    seed: int | None = None,
    task_labels: bool = False,
) -> Benchmark:
    """The same images again and again, each time rotated by another fixed angle.

    Args:
        name: Name of the benchmark.
        train: Training data; inputs are floating-point images (C, H, W) or (H, W).
        test: Test data.
        n_experiences: How many angles, spread evenly from 0 to below 180 degrees.
        degrees: The angles themselves instead, counter-clockwise.
        seed: Draws all angles but the first, which stays 0, from 0 to 180 degrees instead of spreading them evenly.
        task_labels: Label each experience as a task of its own instead of 0 throughout.

    Returns:
        A domain-incremental benchmark. All experiences share the memory of ``train`` and ``test``.

    Raises:
        ValueError: Neither a number of angles nor angles, both but at odds, angles that are not finite, or inputs that
            are no floating-point images.

    Example:
        >>> image = TensorData(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]]), torch.tensor([0]))
        >>> quarter = rotated("toy", image, image, degrees=[0, 90]).train_stream[1].dataset
        >>> quarter[0][0].round()
        tensor([[1., 0.],
                [0., 0.]])
    """
    angles = _angles(n_experiences, degrees, seed)
    first = train[0][0]
    if first.dim() not in (2, 3) or not first.is_floating_point():
        raise ValueError(
            f"{name} has inputs of shape {tuple(first.shape)} and dtype {first.dtype}: "
            f"expected floating-point images (C, H, W) or (H, W) to rotate"
        )
    turns = [partial(rotate, degrees=angle) for angle in angles]
    return views(Data(name, train, test), turns, task_labels=task_labels)


def rotate(x: Tensor, degrees: float) -> Tensor:
    """Rotate images about their centre, counter-clockwise; bilinear, black where nothing was.

    Args:
        x: Images (B, C, H, W) or (B, H, W), floating point.
        degrees: The angle. A multiple of 360 gives the images themselves.

    Example:
        >>> rotate(torch.eye(3).view(1, 3, 3), 90).round()[0]
        tensor([[0., 0., 1.],
                [0., 1., 0.],
                [1., 0., 0.]])
    """
    if degrees % 360 == 0:
        return x
    images = x.unsqueeze(1) if x.dim() == 3 else x
    height, width = images.shape[-2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Each output pixel is fetched from where it comes from. Coordinates run from -1 to 1 along both sides, hence the
    # ratio of the sides; y points downward.
    matrix = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    grid = affine_grid(torch.tensor([matrix], dtype=x.dtype), [1, 1, height, width], align_corners=False)
    grid = grid.to(x.device).expand(len(images), -1, -1, -1)
    return grid_sample(images, grid, align_corners=False).view(x.shape)


def _angles(n_experiences: int | None, degrees: Sequence[float] | None, seed: int | None) -> list[float]:
    if degrees is not None:
        angles = [float(angle) for angle in degrees]
        if not angles or not all(map(math.isfinite, angles)):
            raise ValueError(f"degrees={list(degrees)!r}: expected at least one angle, all finite")
        if n_experiences not in (None, len(angles)):
            raise ValueError(f"n_experiences={n_experiences!r} and {len(angles)} degrees: give one of the two")
        return angles
    if n_experiences is None or n_experiences < 1:
        raise ValueError(f"n_experiences={n_experiences!r}: expected at least 1 (or give degrees)")
    if seed is None:
        return [RANGE * index / n_experiences for index in range(n_experiences)]
    drawn = torch.rand(n_experiences - 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [0.0, *(RANGE * drawn).tolist()]
