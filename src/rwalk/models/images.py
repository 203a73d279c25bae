"""Layers that act on images before the first convolution: what is centred, and what training varies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Centred", "RandomFlip", "RandomShift"]


class Centred(nn.Module):
    """Subtracts a mean, shape (C,), from images (B, C, H, W)."""

    mean: Tensor

    def __init__(self, mean: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The images, centred."""
        return x - self.mean


class RandomFlip(nn.Module):
    """Turns each image of (B, C, H, W) left to right with probability 1/2 while training, as dropout drops."""

    def forward(self, x: Tensor) -> Tensor:
        """The images, some of them turned."""
        if not self.training:
            return x
        turned = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        return torch.where(turned, x.flip(-1), x)


class RandomShift(nn.Module):
    """Moves each image of (B, C, H, W) by up to so many pixels along each axis while training.

    Args:
        pixels: How far at most; each distance from −pixels to pixels is as likely. What comes in at an edge mirrors
            what lies beside it.

    Raises:
        ValueError: Not a positive whole number.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        if not (isinstance(pixels, int) and pixels > 0):
            raise ValueError(f"pixels={pixels!r}: expected a positive whole number")
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        """The images, moved."""
        if not self.training:
            return x
        count, _, height, width = x.shape
        padded = functional.pad(x, (self.pixels,) * 4, mode="reflect")
        corners = torch.randint(2 * self.pixels + 1, (2, count, 1), device=x.device)
        rows, columns = (
            corner + torch.arange(size, device=x.device) for corner, size in zip(corners, (height, width), strict=True)
        )
        image = torch.arange(count, device=x.device)[:, None, None]
        moved = padded[image, :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
        return moved.permute(0, 3, 1, 2)
