"""The same features through torch-fidelity and torchmetrics, where they are installed (both need torchvision)."""

import warnings

import pytest
import torch

from restart_sampling.evaluation.distances import frechet_distance, kernel_distance
from restart_sampling.evaluation.neighbours import precision_recall
from restart_sampling.evaluation.statistics import Statistics


@pytest.fixture(scope="module")
def sides():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(64, 64, generator=generator, dtype=torch.float64) / 8
    return [scale * torch.randn(1000, 64, generator=generator, dtype=torch.float64) @ mix for scale in (1.0, 1.2)]


def statistics(x):
    return Statistics(len(x), x.mean(dim=0), torch.cov(x.T))


def compare(name, ours, theirs, tolerance):
    print(f"{name}: ours {ours:.12g}, theirs {theirs:.12g}, relative difference {abs(ours / theirs - 1):.1e}")
    assert ours == pytest.approx(theirs, rel=tolerance)


def test_torch_fidelity(sides):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = sides
    a, b = ({"mu": s.mu.numpy(), "sigma": s.sigma.numpy()} for s in map(statistics, sides))
    theirs = fid_statistics_to_metric(a, b, verbose=False)["frechet_inception_distance"]
    compare("Fréchet distance", frechet_distance(*map(statistics, sides)), theirs, 1e-9)
    # Subsets of all images, so that the draws do not matter.
    kid = kid_features_to_metric(x, y, kid_subsets=2, kid_subset_size=1000, verbose=False)
    compare("KID", kernel_distance(x, y, 2, 1000)[0], kid["kernel_inception_distance_mean"], 1e-8)
    prc = prc_features_to_metric(x, y, prc_neighborhood=3, verbose=False)
    precision, recall = precision_recall(x, y)
    print("precision", precision, float(prc["precision"]), "recall", recall, float(prc["recall"]))
    assert [precision, recall] == [
        pytest.approx(float(prc["precision"]), abs=1e-6),
        pytest.approx(float(prc["recall"]), abs=1e-6),
    ]


def test_torchmetrics(sides):
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchmetrics.image.fid import _compute_fid
        from torchmetrics.image.kid import poly_mmd

    a, b = map(statistics, sides)
    theirs = _compute_fid(a.mu, a.sigma, b.mu, b.sigma).item()
    compare("Fréchet distance", frechet_distance(a, b), theirs, 1e-9)
    compare("KID", kernel_distance(*sides, 1, 1000)[0], poly_mmd(*sides).item(), 1e-8)
