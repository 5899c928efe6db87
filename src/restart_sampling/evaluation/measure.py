"""`measure`: the metrics of batches of images, in one pass, on all processes."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.collect import Collector
from restart_sampling.evaluation.detectors import Detector
from restart_sampling.evaluation.metrics import NEED_FEATURES, check_count, compute_metrics, notes_on
from restart_sampling.evaluation.partial_sums import PartialSums
from restart_sampling.evaluation.reference import Reference
from restart_sampling.images.image_set import ImageSet

Batches = Iterator[tuple[Sequence[int], Tensor, Tensor | None]]
"""Places in the whole set, uint8 images [B, C, H, W], labels int64 [B] or None: this process's share."""


def image_batches(images: ImageSet, ranks: Ranks, batch_size: int) -> Batches:
    """Reads this process's share of an image set."""
    places = ranks.share(len(images), batch_size)
    own = images.take(places)
    labels = None if own.labels is None else torch.from_numpy(own.labels)
    start = 0
    for batch in own.batches(batch_size):
        end = start + len(batch)
        yield places[start:end], torch.from_numpy(batch), None if labels is None else labels[start:end]
        start = end


def measure(
    batches: Batches,
    images: int,
    detector: Detector,
    reference: Reference,
    ranks: Ranks,
    *,
    metrics: Sequence[str] = ("fd",),
    blocks: int = 1,
    partial: PartialSums | None = None,
    classes: tuple[str, ...] = (),
    name: Callable[[int], str] = "image {}, counted from 0,".format,
    advance: Callable[[int], None] = lambda count: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures a set of images in one pass.

    Args:
        batches: this process's share.
        images: how many there are on all processes.
        detector: the one that the reference was made with.
        reference: to compare with.
        ranks: the processes; all call this.
        metrics: of `evaluation.metrics.METRICS`.
        blocks: runs of neighbours (blocks of seeds) that are measured by themselves.
        partial: where the sums are saved on the way; loaded, and `batches` are then without the images in it.
        classes: names of the classes of the images; () where none are known.
        name: of the image at a place, for messages.
        advance: called with the number of images after each batch.
        say: as of `compute_metrics`.

    Returns:
        JSON: what `compute_metrics` gives, `images`, `seconds` and, where there are any, `notes` on the values;
        the same on all processes.

    Raises:
        InputError: too few images for the blocks; the detector fails, or features are not finite.
    """
    groups = check_count(images, blocks)
    if partial:  # sums of an earlier version have whole blocks for groups
        own = len(partial.earlier["count"]) // blocks if partial.earlier else groups
        groups = min(ranks.gather(own))
    start = time.perf_counter()
    keep = bool(NEED_FEATURES & set(metrics))
    collector = Collector(detector, images, groups, blocks, keep=keep, name=name)
    if partial and partial.earlier:
        collector.restore(partial.earlier)
    with ranks.failing_together():
        for places, batch, labels in batches:
            collector.add(batch, places, labels)
            if partial:
                partial.save_if_due(collector.state)
            ranks.alive()
            advance(len(places))
        if partial:
            partial.save_rest(collector.state)
    moments = collector.reduced(ranks.all_reduce, ranks.gather)
    features = collector.features(ranks.gather, classes) if collector.keep else None
    seconds = time.perf_counter() - start
    with ranks.at_work():
        values = compute_metrics(metrics, moments, features, reference, blocks, device=detector.device, say=say)
    notes = notes_on(images, blocks, collector.size(ranks.gather), metrics, reference, classes)
    return {
        "images": images,
        "pixels_sha256": collector.digest(ranks.gather),
        **values,
        **({"notes": notes} if notes else {}),
        "seconds": round(seconds, 3),
    }


def make_reference(
    batches: Batches,
    images: int,
    detector: Detector,
    ranks: Ranks,
    *,
    keep_features: bool = False,
    classes: tuple[str, ...] = (),
    name: Callable[[int], str] = "image {}, counted from 0,".format,
    advance: Callable[[int], None] = lambda count: None,
) -> Reference:
    """Makes the statistics of a set of images to compare others with; arguments as of `measure`.

    Args:
        keep_features: keep the features too, for the metrics that need them.
    """
    collector = Collector(detector, images, groups=1, keep=keep_features, name=name)
    for places, batch, labels in batches:
        collector.add(batch, places, labels)
        ranks.alive()
        advance(len(places))
    moments = collector.reduced(ranks.all_reduce, ranks.gather)
    features = collector.features(ranks.gather) if keep_features else None
    return Reference(
        moments.statistics(),
        detector.identity,
        collector.digest(ranks.gather),
        features.values if features else None,
        features.labels if features else None,
        collector.size(ranks.gather),
        classes if features and features.labels is not None else (),
        Path(detector.name).name,
    )
