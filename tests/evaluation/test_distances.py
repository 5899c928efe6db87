"""Distances against plain readings of their papers, other formulas for the same thing, and what theory says of them."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restart_sampling.base.errors import InputError
from restart_sampling.evaluation import distances
from restart_sampling.evaluation.collect import Collector, Features
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.distances import (
    frechet_distance,
    frechet_distance_infinity,
    frechet_distances,
    frechet_distances_of_features,
    jackknife,
    kernel_distance,
    kernel_distance_error,
)
from restart_sampling.evaluation.metrics import check_count, compute_metrics
from restart_sampling.evaluation.neighbours import precision_recall
from restart_sampling.evaluation.reference import Reference
from restart_sampling.evaluation.statistics import Moments, Statistics, statistics_of
from restart_sampling.evaluation.values import Value, recall_draws, share_error, value_of


def features(count, width, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64) / math.sqrt(width)
    return scale * torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


def statistics(x):
    return Statistics(len(x), x.mean(dim=0), torch.cov(x.T).reshape(x.shape[1], -1))


def by_scipy(a, b):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scipy's, on its matrix root
        root = scipy.linalg.sqrtm((a.sigma @ b.sigma).numpy())
    return (a.mu - b.mu).square().sum().item() + np.trace((a.sigma + b.sigma).numpy() - 2 * root.real)


def by_nuclear_norm(x, y):
    """Of the product of the centred features themselves: no covariance, no root. Taken as exact."""
    a, b = ((side - side.mean(dim=0)) / math.sqrt(len(side) - 1) for side in (x, y))
    cross = torch.linalg.matrix_norm(a @ b.T, "nuc")
    return ((x.mean(dim=0) - y.mean(dim=0)).square().sum() + a.square().sum() + b.square().sum() - 2 * cross).item()


@pytest.mark.parametrize("width", [8, 64, 200])
def test_frechet_distance_is_that_of_scipys_matrix_root(width):
    x, y = features(5 * width, width, 0), features(6 * width, width, 1, scale=1.3, shift=0.2)
    a, b = statistics(x), statistics(y)
    assert frechet_distance(a, b) == pytest.approx(by_scipy(a, b), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(by_nuclear_norm(x, y), rel=1e-9)


@pytest.mark.parametrize(("count", "other"), [(50, 60), (50, 1000), (1000, 50), (2, 2), (101, 100)])
def test_frechet_distance_of_covariances_without_full_rank(count, other):
    x, y = features(count, 100, 0), features(other, 100, 1, scale=1.3, shift=0.2)
    exact = by_nuclear_norm(x, y)
    assert frechet_distance(statistics(x), statistics(y)) == pytest.approx(exact, rel=1e-9)
    assert frechet_distances_of_features([x, y], y) == pytest.approx([exact, 0], rel=1e-9, abs=1e-9)
    assert frechet_distances_of_features([x], y) == pytest.approx([exact], rel=1e-9)
    assert frechet_distances_of_features([x] * 30, y) == pytest.approx([exact] * 30, rel=1e-9)


def test_distances_of_many_sets_are_those_of_each_in_their_order():
    sets = [statistics(features(60, 40, seed, scale=1 + seed)) for seed in range(7)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    assert frechet_distances(sets, sets[2]) == pytest.approx([frechet_distance(each, sets[2]) for each in sets])
    with pytest.raises(InputError, match="one side has 30 features and the other 40"):
        frechet_distances([statistics(features(60, 30, 0))], sets[2])
    with ThreadPoolExecutor(1) as pool:  # a thread that begins later
        assert pool.submit(torch.get_num_threads).result() == 2
    torch.set_num_threads(threads)


def test_frechet_distance_of_an_ill_conditioned_covariance():
    """Eigenvalues over twelve decades, as in real features: the small ones are not thrown away."""
    scales = torch.logspace(0, -6, 80, dtype=torch.float64)
    x, y = features(400, 80, 0) * scales, features(500, 80, 1, scale=1.2) * scales
    assert frechet_distance(statistics(x), statistics(y)) == pytest.approx(by_nuclear_norm(x, y), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 30), st.integers(0, 1000), st.floats(0.1, 10))
def test_frechet_distance_follows_the_theory_of_gaussians(count, width, seed, factor):
    x, y = features(count + 2, width, seed), features(count + 5, width, seed + 1, shift=0.5)
    a, b = statistics(x), statistics(y)
    distance, size = frechet_distance(a, b), a.sigma.trace().item() + b.sigma.trace().item()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10 * size)
    assert frechet_distance(b, a) == pytest.approx(distance, abs=1e-10 * size)
    assert distance > -1e-10 * size
    # Scaling, rotating and moving both.
    rotation = torch.linalg.qr(features(width, width, seed + 2)).Q
    turned = [statistics(factor * side @ rotation + 3) for side in (x, y)]
    assert frechet_distance(*turned) == pytest.approx(factor**2 * distance, abs=1e-9 * factor**2 * (size + 1))
    # A shift of one side adds its square.
    moved = Statistics(a.count, a.mu + 2, a.sigma)
    assert frechet_distance(moved, a) == pytest.approx(4 * width, rel=1e-9)


def test_frechet_distance_of_commuting_covariances_has_a_closed_form():
    roots = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.0, 0.7]], dtype=torch.float64)
    a, b = (Statistics(None, torch.zeros(3, dtype=torch.float64), torch.diag(each**2)) for each in roots)
    assert frechet_distance(a, b) == pytest.approx((roots[0] - roots[1]).square().sum().item(), rel=1e-12)


def test_features_of_different_detectors_are_refused():
    with pytest.raises(InputError, match="one side has 4 features and the other 5"):
        frechet_distance(statistics(features(9, 4, 0)), statistics(features(9, 5, 0)))


def test_kernel_distance_is_the_papers_formula():
    x, y = features(40, 6, 0), features(40, 6, 1, shift=0.3)
    kernel = lambda a, b: (float(a @ b) / 6 + 1) ** 3  # noqa: E731
    n = 40
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    expected = (
        sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs) / (n * (n - 1))
        - 2 * sum(kernel(a, b) for a in x for b in y) / n**2
    )
    mean, std = kernel_distance(x, y, subsets=3, size=1000)
    assert mean == pytest.approx(expected, rel=1e-12)
    assert std == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased():
    mean, std = kernel_distance(features(20_000, 4, 0)[:10_000], features(20_000, 4, 0)[10_000:], 100, 500)
    assert abs(mean) < 4 * std / math.sqrt(100) + 1e-3
    assert std > 0
    assert kernel_distance(features(90, 4, 0), features(90, 4, 1), 5, 20) == kernel_distance(
        features(90, 4, 0), features(90, 4, 1), 5, 20
    )


@pytest.mark.parametrize(
    ("reference_count", "shift", "size", "most"),
    [(100, 0.5, 1000, 1.2), (300, 0.5, 1000, 1.2), (100, 0.0, 1000, 2.5), (100, 0.5, 30, 1.2), (300, 0.5, 30, 1.2)],
)
def test_the_error_of_the_kernel_distance_is_its_scatter_over_sets_of_images(reference_count, shift, size, most):
    """Whether or not subsets all are the same; without a shift the distance is degenerate and scatters less."""
    values, errors = [], []
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        x, y = (torch.randn(count, 6, generator=generator, dtype=torch.float64) for count in (100, reference_count))
        x += shift
        value, std = kernel_distance(x, y, subsets=20 if size < 100 else 1 if reference_count == 100 else 4, size=size)
        values.append(value)
        errors.append(kernel_distance_error(x, y, std, subsets=20, size=size))
    assert np.std(values) / 1.2 < np.mean(errors) < np.std(values) * most


def test_frechet_distance_infinity_removes_the_bias(monkeypatch):
    """Samples of the reference's own distribution: the distance at N is far from 0, its limit is not."""
    true = Statistics(None, torch.zeros(20, dtype=torch.float64), torch.eye(20, dtype=torch.float64))
    x = torch.randn(4000, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = []
    monkeypatch.setattr(distances, "statistics_of", lambda each: counts.append(len(each)) or statistics_of(each))
    value, error = frechet_distance_infinity(x, true)
    assert (counts[0], counts[-1], len(counts)) == (400, 4000, 15)
    assert frechet_distance(statistics(x[:400]), true) > 0.1
    assert abs(value) < 4 * error + 1e-3
    assert 0 < error < 0.01


def test_jackknife_is_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=20)
    without = [(values.sum() - value) / 19 for value in values]
    assert jackknife(without) == pytest.approx(values.std(ddof=1) / math.sqrt(20))
    halves = values[:10], values[10:]
    without = [(half.sum() - value) / 9 for half in halves for value in half]
    errors = [half.std(ddof=1) / math.sqrt(10) for half in halves]
    assert jackknife(without, 2) == pytest.approx(math.hypot(*errors) / 2)


def test_errors_are_the_scatter_over_draws_of_the_images():
    """Of all that a set of images is measured by: two or three blocks would say little of the error of their mean."""
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    true, real = Reference(Statistics(None, draw(8) * 0, torch.eye(8).double())), draw(400, 8)
    groups = Collector(load_detector("tiny-clip"), 240, check_count(240, 3), 3)._group
    found = []
    for count in range(80):
        x, moments = 0.8 * draw(240, 8) + 0.3, Moments(8, 12)
        moments.add(x, groups)
        precision, recall = precision_recall(x, real)
        found.append({"precision": precision, "precision_error": share_error(precision, 240)})
        found[-1] |= {"recall": recall, "recall_error": share_error(recall, recall_draws(240, 400))}
        if count < 30:
            found[-1] |= compute_metrics(["fd", "fd-infinity"], moments, Features(x, None), true, 3)
    for key in ("frechet_distance", "frechet_distance_infinity", "precision", "recall"):
        values, errors = ([each[name] for each in found if name in each] for name in (key, f"{key}_error"))
        assert np.std(values) / 1.3 < np.mean(errors) < 1.5 * np.std(values), key
        assert np.std(errors) < 0.4 * np.mean(errors), key


def test_a_share_without_a_hit_is_no_certainty():
    assert Value(0.0, 0.0, draws=60).written() == "0 (< 0.049)"  # 1 - 0.05^(1/60) = 0.0487
    assert Value(1.0, 0.0, draws=60).written() == "1 (> 0.951)"
    assert Value(0.5, 0.0642, draws=60).written(" ± ") == "0.500 ± 0.064"
    assert Value(0.0, 0.0).written() == "0 +- 0"  # no share
    assert share_error(0.5, 60) == pytest.approx(0.5 / 62**0.5, rel=1e-9)
    assert share_error(0.0, 60) == pytest.approx(share_error(1.0, 60)) == pytest.approx(0.0114, abs=1e-4)
    line = {"images": 60, "precision": 0.0, "precision_error": 0.0, "recall": 0.0, "recall_error": 0.0}
    real = {"reference": {"images": 1000}}
    assert value_of(line | real, "precision").written() == "0 (< 0.049)"
    assert value_of(line | real, "recall").written() == "0 (< 0.028)"  # 1 / (1 / 1000 + 1 / 120) = 107 draws
    assert value_of(line, "recall").written() == "0 +- 0"  # of an unknown number
    assert value_of(line, "kernel_distance") is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 5), st.integers(0, 99))
def test_moments_do_not_depend_on_batches(batches, groups, seed):
    x = features(sum(batches) + 2, 5, seed, shift=30.0)
    moments = Moments(5, groups)
    start = 0
    for size in (*batches, 2):
        places = range(start, start + size)
        moments.add(x[start : start + size], [place % groups for place in places])
        start += size
    whole = moments.statistics()
    assert whole.count == len(x)
    torch.testing.assert_close(whole.mu, x.mean(dim=0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.sigma, torch.cov(x.T), rtol=1e-10, atol=1e-10)
    chosen = [index % groups == 0 for index in range(len(x))]
    if sum(chosen) > 1:
        torch.testing.assert_close(moments.statistics([0]).mu, x[chosen].mean(dim=0))


def test_two_images_are_the_least():
    moments = Moments(3, 2)
    moments.add(torch.ones(1, 3), [0])
    with pytest.raises(InputError, match="a covariance needs at least 2 images, and there is 1"):
        moments.statistics()
