"""Precision and recall against a plain reading of the paper, where products cancel and where distances tie."""

from dataclasses import replace
from threading import Event

import pytest
import torch

from restart_sampling.evaluation import metrics, neighbours, reference
from restart_sampling.evaluation.collect import Features
from restart_sampling.evaluation.metrics import compute_metrics, on_gpu
from restart_sampling.evaluation.neighbours import precision_recall, radii
from restart_sampling.evaluation.reference import Reference
from restart_sampling.evaluation.statistics import Moments, statistics_of


def exact(points, centres):
    return torch.cdist(points.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist")


def covered(points, centres):
    balls = exact(centres, centres).kthvalue(4, dim=1).values
    return (exact(points, centres) <= balls).any(dim=1).double().mean().item()


def drawn(count, width, seed, scale=1.0):
    return scale * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def lattice(count, values, seed):
    """Points of few places: most distances tie, and many points are the same."""
    return torch.randint(0, values, (count, 4), generator=torch.Generator().manual_seed(seed)).float() / 7


def clusters(count, apart, seed):
    return drawn(count, 5, seed, 1e-3).double() + apart * (torch.arange(count) % 2)[:, None]


def tied_clusters(count, seed):
    """Likewise, and with places so few that distances tie; all numbers are exact."""
    return (7 * lattice(count, 5, seed)).round().double() / 2**10 + 2**20 * (torch.arange(count) % 2)[:, None]


SETS = {
    "random": (drawn(300, 6, 0), drawn(200, 6, 1, 1.2)),
    "the same on both sides": (drawn(90, 6, 0), drawn(90, 6, 0)),
    "some of the other side": (drawn(90, 6, 0)[::3], drawn(90, 6, 0)),
    "a collapsed generator": (drawn(1, 6, 0).expand(100, 6), drawn(90, 6, 0)),
    "one that collapsed to two images": (drawn(2, 6, 0).repeat(50, 1), drawn(90, 6, 0)),
    "both collapsed to the same": (drawn(1, 6, 0).expand(100, 6), drawn(1, 6, 0).expand(50, 6)),
    "ties": (lattice(300, 6, 0), lattice(200, 6, 1)),
    "ties far away": (lattice(300, 6, 0) + 4096, lattice(200, 6, 1) + 4096),
    "a large offset": (drawn(200, 5, 0, 1e-3).double() + 1e3, drawn(150, 5, 1, 1e-3).double() + 1e3),
    "clusters so far apart that products are all rounding": (clusters(200, 1e6, 0), clusters(150, 1e6, 1)),
    "few that are so far apart": (clusters(100, 1e6, 0), clusters(20, 1e6, 1)),
    "the same where distances tie": (tied_clusters(300, 0), tied_clusters(16, 1)),
    "clusters at two distances": (clusters(200, 1e6, 0), clusters(150, 1e4, 1)),
    "as few as there can be": (drawn(4, 3, 0), drawn(4, 3, 1)),
    "few against many": (drawn(4, 3, 0), drawn(500, 3, 1)),
    "many features": (drawn(60, 2048, 0), drawn(50, 2048, 1)),
}


_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=_GPU)])
@pytest.mark.parametrize("entries", [2**24, 2**10], ids=["at once", "in parts"])
@pytest.mark.parametrize("name", SETS)
def test_precision_and_recall_are_the_papers_definition(name, entries, device, monkeypatch):
    monkeypatch.setattr(neighbours, "_ENTRIES", entries)
    x, y = SETS[name]
    assert precision_recall(x.to(device), y.to(device)) == (covered(x, y), covered(y, x))
    for each in (x, y):
        assert torch.equal(radii(each.to(device)), exact(each, each).kthvalue(4, dim=1).values)


def test_exact_distances_are_few(monkeypatch):
    """Else it would take as long as without products; an offset or a generator that collapsed is no reason either."""
    pairs = []
    monkeypatch.setattr(neighbours, "_distances", lambda a, b: pairs.append(len(a) * b.shape[-2]) or _distances(a, b))
    _distances = exact
    x, y = drawn(400, 64, 0).double(), drawn(300, 64, 1).double()
    for generated, real in ((x, y), (x + 1e7, y + 1e7), (x[:1].expand(400, 64), y), (x[:2].repeat(200, 1), y), (y, y)):
        pairs.clear()
        precision_recall(generated, real)
        assert sum(pairs) == (neighbours._CANDIDATES + 1) * (len(generated) + 300)


def sides(count=60, width=4):
    real = drawn(50, width, 1)
    moments = Moments(width, 10)
    x = drawn(count, width, 0)
    moments.add(x, [place % 10 for place in range(count)])
    return moments, Features(x, None), Reference(statistics_of(real), features=real)


def test_the_radii_of_a_reference_are_computed_once(monkeypatch):
    counted = []
    monkeypatch.setattr(reference, "radii", lambda centres: counted.append(len(centres)) or radii(centres))
    moments, features, real = sides()
    first, second = (compute_metrics(["fd", "pr"], moments, features, real, 1) for _ in range(2))
    assert first == second
    assert (first["precision"], first["recall"]) == precision_recall(features.values, real.features)
    every = [real.part(3) for _ in range(2)]
    assert [metrics.METRICS["pr"].compute(features, each)["recall"] for each in every] == [
        covered(real.features[::3], features.values)
    ] * 2
    assert counted == [50, 17]


def test_what_takes_longer_than_a_few_seconds_is_said(monkeypatch):
    moments, features, real = sides()
    said, told = [], Event()
    compute_metrics(["fd", "pr"], moments, features, real, 1, say=said.append)
    assert said == []

    def slow(*_):
        assert told.wait(10)
        return {}

    monkeypatch.setattr(metrics, "_SILENT_SECONDS", 0.01)
    monkeypatch.setattr(metrics, "_distance", lambda *_: {})
    monkeypatch.setitem(metrics.METRICS, "pr", metrics.Metric("precision and recall", slow))
    compute_metrics(["pr"], moments, features, real, 1, say=lambda text: said.append(text) or told.set())
    assert said[-1] == "precision and recall of 60 images against 50"


def test_features_move_to_a_device_once_for_all_metrics(monkeypatch):
    moments, features, real = sides()
    seen = []
    for name in ("kid", "pr", "fd-infinity"):
        metric = replace(metrics.METRICS[name], compute=lambda own, other: seen.append((own, other)) or {})
        monkeypatch.setitem(metrics.METRICS, name, metric)
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, device, *more: x.clone() if device == gpu else to(x, device, *more)
    )
    gpu = torch.device("cuda")
    compute_metrics(["kid", "pr", "fd-infinity"], moments, features, real, 1, device=gpu)
    assert len(seen) == 3
    assert len({(id(own.values), id(other.features)) for own, other in seen}) == 1
    assert seen[0][0].values is not features.values


def test_where_the_memory_of_a_gpu_does_not_suffice_the_cpu_computes(monkeypatch):
    _, features, real = sides()
    moved = []
    for kind in (Features, Reference):
        monkeypatch.setattr(kind, "part", lambda each, step=1, device=None: moved.append(device) or each)

    def compute(*_):
        if len(moved) == 2:
            moved.append("full")
            raise torch.OutOfMemoryError
        return {"precision": 0.5}

    gpu = torch.device("cuda")
    assert on_gpu(compute, features, real, gpu) == {"precision": 0.5}
    assert moved == [gpu, gpu, "full"]
    assert on_gpu(compute, features, real, torch.device("mps")) == {"precision": 0.5}  # which has no float64
    assert len(moved) == 3
