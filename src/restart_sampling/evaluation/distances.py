"""Distances between two sets of images, from the features of a detector."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.evaluation.statistics import Moments, Statistics, statistics_of

T = TypeVar("T")


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Computes |mu_a - mu_b|² + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), the squared 2-Wasserstein distance of Gaussians.

    With S = F Fᵀ the trace of the root is the sum of the singular values of F_aᵀ F_b: no matrix root, nothing complex,
    and errors of 1e-16 of the largest singular value also where a covariance has not full rank.

    Raises:
        InputError: the numbers of features differ.

    Source: Heusel et al. 2017 (arXiv 1706.08500), equation 6; Dowson and Landau 1982.
    """
    if a.mu.shape != b.mu.shape:
        raise InputError(f"one side has {len(a.mu)} features and the other {len(b.mu)}; use the same detector for both")
    cross = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    distance = (a.mu - b.mu).square().sum() + a.sigma.trace() + b.sigma.trace() - 2 * cross
    return distance.item()


_ALONE = 1024
"""Rows of a matrix, below which one thread decomposes it as fast as many, which mostly wait for one another."""


def frechet_distances(sets: Sequence[Statistics], reference: Statistics) -> list[float]:
    """Computes `frechet_distance` of each of the sets, as many at a time as torch has threads."""
    _ = reference.factor  # once, before all of them want it
    return _side_by_side(lambda each: frechet_distance(each, reference), sets, len(reference.mu))


def frechet_distances_of_features(sets: Sequence[Tensor], reference: Tensor) -> list[float]:
    """Computes the same from features [N, d] of each set, and [M, d]; of few images without a d x d matrix."""
    rows, (count, width) = [len(each) for each in sets], reference.shape
    if min(*rows, count) > width:
        return frechet_distances([statistics_of(each) for each in sets], statistics_of(reference))
    mean, deviations, squares = _centred(reference)
    if sum(rows) * (count - width) > count * width:  # what it saves is more than what it takes
        deviations = torch.linalg.qr(deviations, mode="r")[1]  # has the same products with others, of fewer rows
    other = mean, deviations, squares
    return _side_by_side(lambda each: _distance_of_few(_centred(each), other), sets, max(rows))


def _side_by_side(distance: Callable[[T], float], sets: Sequence[T], rows: int) -> list[float]:
    """Computes a distance of each of the sets in threads, where it decomposes a matrix of so many rows."""
    threads = torch.get_num_threads()
    own = 1 if rows < _ALONE else max(1, threads // len(sets))
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(own,)) as pool:
            return list(pool.map(distance, sets))
    finally:
        torch.set_num_threads(threads)  # which threads that begin later have, too


def _centred(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes their mean [d], their deviations over sqrt(N - 1), [N, d], and the sum of the squares of these."""
    x = features.double()
    deviations = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
    return x.mean(dim=0), deviations, deviations.square().sum()


def _distance_of_few(a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor]) -> float:
    products = (b[1] @ a[1].T).cpu()  # a GPU takes longer for a small matrix
    cross = torch.linalg.svdvals(torch.linalg.qr(products, mode="r")[1]).sum().item()
    return ((a[0] - b[0]).square().sum() + a[2] + b[2]).item() - 2 * cross


KID_SUBSETS, KID_SUBSET = 100, 1000
"""How many subsets there are, and of how many images."""


def kernel_distance(
    features: Tensor, reference: Tensor, subsets: int = KID_SUBSETS, size: int = KID_SUBSET
) -> tuple[float, float]:
    """Computes KID: the squared maximum mean discrepancy with the kernel (xᵀy / d + 1)³, unbiased.

    Args:
        features: [N, d].
        reference: [M, d].
        subsets: random subsets of both sides, drawn without replacement.
        size: images of each subset, at most N and M.

    Returns:
        Mean and standard deviation over the subsets. The deviation is no error of the mean, which is that of many
        subsets: `kernel_distance_error` gives one.

    Source: Binkowski et al. 2018 (arXiv 1801.01401), equation 3 and section 4.
    """
    size = min(size, len(features), len(reference))
    values = _of_subsets(features, reference, (size, size), subsets)
    return float(np.mean(values)), float(np.std(values))


def kernel_distance_error(
    features: Tensor, reference: Tensor, std: float, subsets: int = KID_SUBSETS, size: int = KID_SUBSET
) -> float:
    """Estimates the standard error of KID by random parts of both sides: a delete-d jackknife.

    The parts are the subsets of KID, or where these have all images of a side, halves of no more images than a subset.
    Of n images m have the variance v / m, and scatter about those of all n by v / m - v / n.

    Args:
        features: [N, d], N at least 4.
        reference: [M, d], M at least 4.
        std: of `kernel_distance`, with as many subsets of this size.
        subsets: random parts.
        size: images of a subset of KID.

    Source: Shao and Wu 1989.
    """
    counts = len(features), len(reference)
    parts, of_subsets = (size, size), 1 / subsets  # of the mean, which is that of so many
    if min(counts) <= size:
        parts, of_subsets = (min(counts[0] // 2, size), min(counts[1] // 2, size)), 0.0
        std = float(np.std(_of_subsets(features, reference, parts, subsets)))
    of_all, of_parts = (sum(1 / count for count in each) for each in (counts, parts))
    return float(std * (of_all / (of_parts - of_all) + of_subsets) ** 0.5)


def _of_subsets(features: Tensor, reference: Tensor, sizes: tuple[int, int], subsets: int) -> list[float]:
    """Computes KID of random subsets of these sizes, the same at every call."""
    random = np.random.default_rng(0)
    values = []
    for _ in range(subsets):
        x, y = (
            side[torch.from_numpy(random.choice(len(side), size, replace=False)).to(side.device)].double()
            for side, size in zip((features, reference), sizes, strict=True)
        )
        values.append((_within(x) + _within(y) - 2 * _kernel(x, y).mean()).item())
    return values


def _within(x: Tensor) -> Tensor:
    """Computes the mean of the kernel over pairs of different images."""
    pairs = _kernel(x, x)
    return (pairs.sum() - pairs.trace()) / (len(x) * (len(x) - 1))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def frechet_distance_infinity(features: Tensor, reference: Statistics) -> tuple[float, float]:
    """Computes FD-infinity: the distance falls like 1/N with the generated images, so a line gives its limit.

    The line is through 15 random subsets, of sizes from min(5000, N / 10) to N.

    Args:
        features: of the generated images, [N, d].
        reference: of the real ones.

    Returns:
        The intercept of the line over 1/N, and its standard error from the scatter about the line. That is the error of
        the way to the limit: what all subsets have in common, the images themselves, scatters by as much as their
        distance does.

    Source: Chong and Forsyth 2020 (arXiv 1911.07023), section 4.
    """
    total = len(features)
    counts = np.linspace(max(2, min(5000, total // 10)), total, 15).astype(int)
    random = np.random.default_rng(0)
    subsets = (torch.from_numpy(random.choice(total, count, replace=False)) for count in counts)
    distances = frechet_distances([statistics_of(features[chosen]) for chosen in subsets], reference)
    (_, value), covariance = np.polyfit(1 / counts, distances, 1, cov=True)
    return float(value), float(np.sqrt(covariance[1, 1]))


def distances_of_blocks(moments: Moments, reference: Statistics, blocks: int) -> tuple[list[float], list[float]]:
    """Computes the distance of each block of images, and without each group of its block.

    Args:
        moments: of the images, in equally many groups of each block.
        reference: to compare with.
        blocks: how many there are.

    Returns:
        One of each block, and one of each group, in their order; none of groups that are a whole block.
    """
    runs = np.arange(len(moments.count)).reshape(blocks, -1).tolist()
    parts = [[each for each in run if each != left] for run in runs if len(run) > 1 for left in run]
    found = frechet_distances([moments.statistics(part) for part in (*runs, *parts)], reference)
    return found[:blocks], found[blocks:]


def jackknife(without: Sequence[float], blocks: int = 1) -> float:
    """Estimates a value's standard error by the value without each of G equal groups: delete-a-group jackknife.

    Unlike a bootstrap it draws no image twice, which would bias a Fréchet distance.

    Args:
        without: the value of a block without a group of it, for all of its groups, block by block.
        blocks: how many there are; the error is that of the mean of their values.

    Source: Efron and Stein 1981; Shao and Wu 1989 for groups.
    """
    rows = np.reshape(without, (blocks, -1))
    groups = rows.shape[1]
    squares = (rows - rows.mean(axis=1, keepdims=True)) ** 2
    return float(np.sqrt((groups - 1) / groups * squares.sum()) / blocks)
