"""Lets torchvision's registry wheel, a CUDA build, be imported beside a torch without CUDA.

Its import registers shape functions for operators that its compiled library would have declared. Declaring them first
is enough for Avalanche, which calls none of them.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
