"""Augmentation that does not leak: the network is told which transform was applied.

As Karras et al. 2022 (arXiv 2206.00364), appendix F.2, have it: flips, scaling, rotation, stretching and translation,
each by itself with some probability. Nine numbers say what was done, and 0 is nothing, so a network that gets no labels
when it samples draws plain images:

    0, 1   1 for an image flipped from left to right, and upside down
    2      log2 of the scaling
    3, 4   cos - 1 and sin of the rotation
    5, 6   log2 of the stretching times cos and sin of twice the angle of its axis; across the axis it shrinks as much
    7, 8   the translation in widths of the image, to the right and down
"""

from math import log, pi

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LABELS = 9

_SCALE = 0.2
"""Standard deviation of log2 of the scaling, and of the stretching."""
_TRANSLATION = 1 / 8
"""Standard deviation of the translation, in widths."""


def draw_labels(flipped: Tensor, probability: float, generator: Generator) -> Tensor:
    """Draws what is to be done to each image.

    Args:
        flipped: bool [B], which images are flipped from left to right.
        probability: of each of the others; of the upside-down flip, half of it.
        generator: on the device to use.

    Returns:
        float32 [B, 9].
    """
    count, device = len(flipped), generator.device
    chosen = torch.rand(5, count, generator=generator, device=device) < probability
    coin, turn, axis = torch.rand(3, count, generator=generator, device=device)
    scale, stretch, right, down = torch.randn(4, count, generator=generator, device=device)
    turn, axis = 2 * pi * turn, 2 * pi * axis
    labels = [
        flipped,
        chosen[0] & (coin < 0.5),
        chosen[1] * _SCALE * scale,
        chosen[2] * (turn.cos() - 1),
        chosen[2] * turn.sin(),
        chosen[3] * _SCALE * stretch * axis.cos(),
        chosen[3] * _SCALE * stretch * axis.sin(),
        chosen[4] * _TRANSLATION * right,
        chosen[4] * _TRANSLATION * down,
    ]
    return torch.stack([label.float() for label in labels], dim=1)


def transform(images: Tensor, labels: Tensor) -> Tensor:
    """Does to the images what the labels say. The edge mirrors what lies beyond it.

    Images that are at most flipped keep their pixels; the others are read between the pixels by cubic interpolation.

    Args:
        images: float32 [B, C, H, W].
        labels: from `draw_labels`.

    Returns:
        Images of the same shape.
    """
    images = torch.where(_of_each(labels[:, 0] != 0), images.flip(3), images)
    images = torch.where(_of_each(labels[:, 1] != 0), images.flip(2), images)
    grid = F.affine_grid(_where_from(labels), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return torch.where(_of_each((labels[:, 2:] != 0).any(dim=1)), moved, images)


def _of_each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _where_from(labels: Tensor) -> Tensor:
    """The inverse of scaling, rotation, stretching and translation, done in this order: matrices [B, 2, 3] from places
    in the new image to places in the old one, with the image from -1 to 1."""
    _, _, scale, cos, sin, along, across, right, down = labels.unbind(dim=1)
    turn = _matrix(cos + 1, sin, -sin, cos + 1)  # back
    # A symmetric matrix with the eigenvalues 2^-stretch along the axis and 2^stretch across it.
    stretch = torch.hypot(along, across)
    half = log(2) * stretch
    sinh = half.sinh() / stretch.clamp(min=1e-12)
    shrink = _matrix(half.cosh() - sinh * along, -sinh * across, -sinh * across, half.cosh() + sinh * along)
    linear = torch.exp2(-scale)[:, None, None] * turn @ shrink
    shift = -linear @ torch.stack([2 * right, 2 * down], dim=1)[:, :, None]
    return torch.cat([linear, shift], dim=2)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Makes [[a, b], [c, d]] of each image."""
    return torch.stack([torch.stack([a, b], dim=1), torch.stack([c, d], dim=1)], dim=1)
