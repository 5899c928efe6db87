"""Improved precision and recall: the share of one set within the nearest-neighbour balls of the other.

Matrix products say which points are the nearest, and how far rounding may have moved them at most; what is compared are
the exact distances of these few, on the CPU. So the shares are those of exact distances, whatever the device.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_NEIGHBOURS = 3
_CANDIDATES = 6  # for a radius, among them the point itself: most often no other can be nearer than the fourth
_ENTRIES = 2**24  # of a matrix of distances at a time, 128 MB


def precision_recall(features: Tensor, reference: Tensor, reference_radii: Tensor | None = None) -> tuple[float, float]:
    """Computes improved precision and recall, of 3 neighbours.

    Args:
        features: of the generated images, [N, d], N at least 4.
        reference: of the real ones, [M, d] on the same device, M at least 4.
        reference_radii: `radii` of the reference, where they are known already.

    Returns:
        Precision (generated images near real ones) and recall (real images near generated ones).

    Source: Kynkäänniemi et al. 2019 (arXiv 1904.06991), section 3.
    """
    known = radii(reference) if reference_radii is None else reference_radii
    return _covered(features, reference, known), recall(features, reference)


def recall(features: Tensor, reference: Tensor) -> float:
    """Computes the recall of `precision_recall` alone, which needs no distances within the reference."""
    return _covered(reference, features, radii(features))


def radii(centres: Tensor) -> Tensor:
    """Computes the distance of each of the centres [M, d] to its third nearest neighbour, float64 [M] on the CPU."""
    found = []
    for rows, below, near in _nearest(centres, centres, torch.zeros(len(centres)), min(_CANDIDATES, len(centres))):
        # The nearest of all is the point itself.
        radius = _distances(centres[rows, None], centres[near])[:, 0].kthvalue(_NEIGHBOURS + 1).values
        doubtful = radius.square() > below[:, -1].clamp(min=0)
        if doubtful.any():
            radius[doubtful] = _distances(centres[rows][doubtful], centres).kthvalue(_NEIGHBOURS + 1).values
        found.append(radius)
    return torch.cat(found)


def _covered(points: Tensor, centres: Tensor, radius: Tensor) -> float:
    inside = []
    for rows, below, near in _nearest(points, centres, radius, 1):
        hit = _distances(points[rows, None], centres[near])[:, 0, 0] <= radius[near[:, 0].cpu()]
        doubtful = ~hit & (below[:, 0] <= 0)
        if doubtful.any():
            hit[doubtful] = (_distances(points[rows][doubtful], centres) <= radius).any(dim=1)
        inside.append(hit)
    return torch.cat(inside).double().mean().item()


def _nearest(points: Tensor, centres: Tensor, radius: Tensor, count: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Finds, for some points at a time, the `count` centres of the least |x - c|² - r², by matrix products.

    Yields:
        Which points; lower bounds of these values, ascending, [n, count] on the CPU; which centres, [n, count]. The
        values of all other centres are not below the last bound.
    """
    middle = centres.mean(dim=0, dtype=torch.float64)  # products of large offsets would cancel
    centred = centres - middle
    # Errors of a sum of d products are at most d eps / 2 of its terms: here of products, norms and exact distances.
    less = 1 - 4 * (centres.shape[1] + 8) * torch.finfo(torch.float64).eps
    offsets = less * centred.square().sum(dim=1) - radius.to(centred).square()
    step = max(1, _ENTRIES // max(len(centres), _CANDIDATES * centres.shape[1]))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        x = points[rows] - middle
        least = torch.addmm(offsets, x, centred.T, alpha=-2).topk(count, largest=False)
        yield rows, (least.values + less * x.square().sum(dim=1, keepdim=True)).cpu(), least.indices


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Computes exact distances: without products, which cancel, and on the CPU, so that no device changes a digit."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points.cpu().double(), centres.cpu().double(), compute_mode=mode)
