"""`METRICS` of one set of images, each with its standard error."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil, hypot
from statistics import fmean, stdev
from threading import Timer
from typing import Any, TypeVar

import torch
from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted
from restart_sampling.evaluation.class_pairs import pair_classes, pairing_note
from restart_sampling.evaluation.collect import Features
from restart_sampling.evaluation.distances import (
    distances_of_blocks,
    frechet_distance_infinity,
    frechet_distances_of_features,
    jackknife,
    kernel_distance,
    kernel_distance_error,
)
from restart_sampling.evaluation.neighbours import precision_recall
from restart_sampling.evaluation.reference import Reference
from restart_sampling.evaluation.statistics import Moments
from restart_sampling.evaluation.values import recall_draws, share_error

GROUPS = 10
"""Of the jackknife of one block; of several, each has as many as give the error no fewer degrees of freedom."""

_LEAST = 4  # images of the reference: halves of them for KID, and three nearest neighbours
_SILENT_SECONDS = 3.0

T = TypeVar("T")


def check_metrics(metrics: Sequence[str], reference: Reference) -> None:
    """Makes sure that the reference has what the metrics need.

    Raises:
        InputError: an unknown metric, or one that needs what the reference file does not keep, or more images.
    """
    features, labels = reference.features, reference.labels
    for name in metrics:
        if name not in METRICS:
            raise InputError(f"there is no metric '{name}'; allowed: {', '.join(METRICS)}")
        if METRICS[name].reference_features:
            if features is None:
                raise InputError(
                    f"metric '{name}' needs the features of the reference images; make it with 'reference --features'"
                )
            if len(features) < _LEAST:
                raise InputError(
                    f"metric '{name}' needs at least {_LEAST} images of the reference, and it has {len(features)}"
                )
        if METRICS[name].classes:
            if labels is None:
                raise InputError(f"metric '{name}' needs a reference with classes, and this one has none")
            label, count = min(Counter(labels.tolist()).items(), key=lambda item: item[1])
            if count < 2:
                raise InputError(
                    f"metric '{name}' needs at least 2 images of each class of the reference, and class {label} has 1"
                )


def check_count(images: int, blocks: int) -> int:
    """Counts the groups that each block of images is cut into, for the jackknife.

    Raises:
        InputError: there are too few images.
    """
    groups = 1 + ceil((GROUPS - 1) / blocks)
    if images < 2 * groups * blocks:
        raise InputError(
            f"{counted(images, 'image')} in {counted(blocks, 'block')} are too few for the error of a distance; "
            f"give at least {2 * groups} for each block"
        )
    return groups


def notes_on(
    images: int,
    blocks: int,
    size: Sequence[int] | None,
    metrics: Sequence[str],
    reference: Reference,
    classes: Sequence[str] = (),
) -> list[str]:
    """Says what has to be known of values beside their errors, a sentence each.

    Args:
        images: how many there are.
        blocks: that they are cut into.
        size: height and width of the images; None: not known yet.
        metrics: that are asked for.
        reference: that they are compared with.
        classes: names of the classes of the images; () where none are known.
    """
    few = {"images of each block" if blocks > 1 else "images": images // blocks}
    if "per-class" in metrics and reference.labels is not None:
        few["images of a class"] = images // len(set(reference.labels.tolist()))
    if reference.statistics.count is not None:
        few["images of the reference"] = reference.statistics.count
    notes = [
        f"there are {count} {what} for {reference.width} features, so that the Fréchet distance is too high by more "
        f"than its error says; give more than {reference.width}, or compare it only with distances of as many images"
        for what, count in few.items()
        if count <= reference.width
    ]
    if "per-class" in metrics and (note := pairing_note(classes, reference.classes)):
        notes.append(note)
    if size and reference.size and tuple(size) != reference.size:
        own, other = (f"{width}x{height}" for height, width in (size, reference.size))
        notes.append(f"the images are {own} and those of the reference {other}, which moves all values")
    return notes


def compute_metrics(
    metrics: Sequence[str],
    moments: Moments,
    features: Features | None,
    reference: Reference,
    blocks: int,
    *,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Computes the metrics, as JSON: `frechet_distance` and its error always, the others where they are asked for.

    Args:
        metrics: of `METRICS`.
        moments: of the images, in as many groups of each block as `check_count` says.
        features: of the images, where a metric needs them.
        reference: to compare with.
        blocks: blocks of seeds, each measured by itself.
        device: as of `on_gpu`.
        say: is told what takes longer than a few seconds, from another thread.
    """
    against = f" against {reference.statistics.count}" if reference.statistics.count else ""
    sets = f"of {counted(int(moments.count.sum()), 'image')}{against}"
    with _said_late(say, f"{METRICS['fd'].title} {sets}"):
        result = _distance(moments, reference, blocks)
    for metric in (METRICS[name] for name in metrics):
        if metric.compute:
            assert features is not None
            with _said_late(say, f"{metric.title} {sets}"):
                result |= on_gpu(metric.compute, features, reference, device)
    key = "frechet_distance_infinity_error"
    if key in result:  # that of the way to the limit alone
        result[key] = hypot(result[key], result["frechet_distance_error"])
    return result


def on_gpu(
    compute: Callable[[Features, Reference], T], features: Features, reference: Reference, device: torch.device | None
) -> T:
    """Computes from features that are on the device, where it is a CUDA one and has the memory; else on the CPU.

    Apple's GPUs have no float64.
    """
    if device is not None and device.type == "cuda":
        with suppress(torch.OutOfMemoryError):
            return compute(features.part(device=device), reference.part(device=device))
    return compute(features, reference)


@contextmanager
def _said_late(say: Callable[[str], None], text: str) -> Iterator[None]:
    timer = Timer(_SILENT_SECONDS, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _distance(moments: Moments, reference: Reference, blocks: int) -> dict[str, Any]:
    """Measures each block by itself, and without each of its groups: the paper's protocol prints the minimum of three.

    The spread of two or three blocks says little of their error, and often far too little; it is the error only of sums
    of an earlier version, which have whole blocks for groups.
    """
    values, without = distances_of_blocks(moments, reference.statistics, blocks)
    of_blocks = {"frechet_distance_min": min(values), "frechet_distance_blocks": values} if blocks > 1 else {}
    return {
        "frechet_distance": fmean(values),
        "frechet_distance_error": jackknife(without, blocks) if without else stdev(values) / blocks**0.5,
        **of_blocks,
        **({"frechet_distance_without_group": without} if without else {}),
    }


def _kid(features: Features, reference: Reference) -> dict[str, Any]:
    assert reference.features is not None
    mean, std = kernel_distance(features.values, reference.features)
    error = kernel_distance_error(features.values, reference.features, std)
    return {"kernel_distance": mean, "kernel_distance_std": std, "kernel_distance_error": error}


def _pr(features: Features, reference: Reference) -> dict[str, Any]:
    assert reference.features is not None
    precision, recall = precision_recall(features.values, reference.features, reference.radii)
    return {
        "precision": precision,
        "precision_error": share_error(precision, len(features.values)),
        "recall": recall,
        "recall_error": share_error(recall, recall_draws(len(features.values), len(reference.features))),
    }


def _infinity(features: Features, reference: Reference) -> dict[str, Any]:
    value, error = frechet_distance_infinity(features.values, reference.statistics)
    return {"frechet_distance_infinity": value, "frechet_distance_infinity_error": error}


def _per_class(features: Features, reference: Reference) -> dict[str, Any]:
    assert reference.features is not None
    assert reference.labels is not None
    assert features.labels is not None
    distances = {
        name: _class_distance(features.values[features.labels == ours], reference.features[reference.labels == theirs])
        for name, (ours, theirs) in pair_classes(features.labels, features.classes, reference).items()
    }
    return {
        "frechet_distance_per_class": {name: value for name, (value, _) in distances.items()},
        "frechet_distance_per_class_error": {name: error for name, (_, error) in distances.items()},
    }


def _class_distance(features: Tensor, reference: Tensor) -> tuple[float, float]:
    """Computes the distance of the images of one class, and its jackknife error."""
    count = min(GROUPS, len(features) // 2)
    group = torch.arange(len(features)) % count
    sets = [features, *(features[group != each] for each in range(count))]
    value, *without = frechet_distances_of_features(sets, reference)
    return value, jackknife(without)


@dataclass(frozen=True)
class Metric:
    """A metric: how it is computed, and what that needs.

    Attributes:
        title: what is computed, for the user.
        compute: from the features of the images and the reference, as JSON; None: from the sums, always.
        reference_features: whether it needs the features of the reference images.
        classes: whether it needs classes of the reference images.
    """

    title: str
    compute: Callable[[Features, Reference], dict[str, Any]] | None
    reference_features: bool = True
    classes: bool = False


METRICS = {
    "fd": Metric("Fréchet distance", None, reference_features=False),
    "kid": Metric("kernel distance", _kid),
    "pr": Metric("precision and recall", _pr),
    "fd-infinity": Metric("Fréchet distance at infinitely many images", _infinity, reference_features=False),
    "per-class": Metric("Fréchet distances of the classes", _per_class, classes=True),
}
"""All metrics by name; a new one is a line here, and titles of its values in `results_file.TITLES`."""

NEED_FEATURES = frozenset(name for name, metric in METRICS.items() if metric.compute)


def paired_difference(run: dict[str, Any], base: dict[str, Any]) -> tuple[float, float]:
    """Computes a run's Fréchet distance less that of another on the same seeds, and the difference's standard error.

    What the seeds have in common cancels: groups or blocks of the same seeds are compared with one another.

    Args:
        run: from `compute_metrics`; lines of earlier versions have no groups of blocks, and their error is a spread.
        base: likewise, with the same seeds and groups.

    Raises:
        InputError: the two were not cut alike.
    """
    blocks, without = (_differences(run, base, f"frechet_distance_{each}") for each in ("blocks", "without_group"))
    if blocks is not None and without:
        return run["frechet_distance"] - base["frechet_distance"], jackknife(without, len(blocks) or 1)
    if blocks:
        return fmean(blocks), stdev(blocks) / len(blocks) ** 0.5
    raise InputError("two runs can be paired only when both have the same seeds and the same number of blocks")


def _differences(run: dict[str, Any], base: dict[str, Any], key: str) -> list[float] | None:
    """Subtracts lists of two runs, which may lack them; None where one has another length."""
    one, other = run.get(key, ()), base.get(key, ())
    return [a - b for a, b in zip(one, other, strict=True)] if len(one) == len(other) else None
