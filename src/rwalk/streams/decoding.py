"""Columns of a Hugging Face dataset as tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rwalk.streams.columns import kind_of
from rwalk.streams.data import TensorData
from rwalk.streams.text import hash_tokens

__all__ = ["as_inputs", "decode_images", "decode_inputs", "to_unit"]

CHUNK = 512  # images decoded at a time
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")


def decode_inputs(
    table: Any, column: str, *, image_size: tuple[int, int] | None, length: int, vocabulary: int
) -> Tensor:
    """A column of images, arrays or text as one tensor.

    Args:
        table: A ``datasets.Dataset``.
        column: The column of inputs.
        image_size: Height and width that images are resized to; None takes them as they are.
        length: Words kept of each text.
        vocabulary: Number of token ids.

    Returns:
        Images (N, C, H, W), uint8; arrays (N, ...) in their own type; token ids (N, L), int64.

    Raises:
        ValueError: Images or arrays that differ in size, an image mode that has no 8 bits a channel, or a column that
            holds something else.
    """
    kind = kind_of(table.features[column])
    if kind == "images":
        return decode_images(table, column, image_size)
    if kind == "text":
        return hash_tokens(table[column][:], length, vocabulary)
    if kind == "arrays":
        values = table.with_format("numpy")[column][:]
        if values.dtype == object:
            raise ValueError(f"arrays in column {column!r} differ in shape: expected one shape for all")
        return torch.from_numpy(values)
    raise ValueError(f"column {column!r} holds {kind}: expected images, arrays or text")


def decode_images(table: Any, column: str, size: tuple[int, int] | None = None) -> Tensor:
    """All images of a column, grey if all of them are.

    Args:
        table: A ``datasets.Dataset``.
        column: The column of images.
        size: Height and width that they are resized to (bilinear); None takes them as they are.

    Returns:
        Shape (N, C, H, W) with C = 1 (grey) or 3 (red, green, blue), uint8.

    Raises:
        ValueError: Images that differ in size, or that have no 8 bits a channel.
    """
    import numpy as np

    chunks: list[Tensor] = []
    for rows in table.select_columns([column]).iter(CHUNK):
        images = rows[column]
        if any(image is None for image in images):
            raise ValueError(f"column {column!r} has rows without an image")
        for mode in sorted({image.mode for image in images} - {*GREY, *COLOUR}):
            raise ValueError(f"images of mode {mode!r} in column {column!r}: expected 8 bits a channel")
        wanted = "L" if all(image.mode in GREY for image in images) else "RGB"
        pixels = [image if image.mode == wanted else image.convert(wanted) for image in images]
        if size is not None:
            pixels = [image if image.size[::-1] == size else image.resize(size[::-1], 2) for image in pixels]
        shapes = sorted({image.size[::-1] for image in pixels} | {tuple(chunk.shape[2:]) for chunk in chunks[:1]})
        if len(shapes) > 1:
            raise ValueError(
                f"images in column {column!r} differ in size, such as {shapes[0]} and {shapes[-1]}: "
                f"give image_size=(height, width)"
            )
        stacked = torch.from_numpy(np.stack([np.asarray(image) for image in pixels]))
        chunks.append(stacked.unsqueeze(1) if wanted == "L" else stacked.permute(0, 3, 1, 2).contiguous())
    channels = max(chunk.shape[1] for chunk in chunks)
    return torch.cat([chunk.expand(-1, channels, -1, -1) for chunk in chunks])


def as_inputs(x: Tensor, y: Tensor, task_labels: int | Tensor = 0) -> TensorData:
    """Labelled inputs as networks take them.

    Bytes become numbers from 0 to 1. Grey images and flat vectors do so at once; of three channels or more the bytes
    are kept, a quarter of the memory, and each batch is converted as it is taken. float64 becomes float32; other types
    stay.

    Args:
        x: Inputs, shape (N, ...).
        y: Class labels, shape (N,).
        task_labels: One for all, or one per sample, shape (N,).
    """
    if x.dtype is torch.float64:
        x = x.float()
    if x.dtype is torch.uint8:
        if x.dim() == 4 and x.shape[1] > 1:
            return TensorData(x, y, task_labels, transform=to_unit)
        x = to_unit(x)
    return TensorData(x, y, task_labels)


def to_unit(x: Tensor) -> Tensor:
    """Bytes 0 to 255 as float32 from 0 to 1."""
    return x.float().div_(255.0)
